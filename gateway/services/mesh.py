"""Fan-outs as callers ask for them: checked and planned, then run, then summed up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any as Untyped

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from gateway.clock import Clock
from gateway.fanout.allowances import Allowance, retries
from gateway.fanout.behalf import Behalf, Mint, behalf_of
from gateway.fanout.branch import TYPES, Respondent
from gateway.fanout.budget import split
from gateway.fanout.completion import Progress, progress
from gateway.fanout.counts import Counts
from gateway.fanout.legs import Legs, Request
from gateway.fanout.lines import RESPONSE_MAX_BYTES
from gateway.fanout.merge import Gathered, read_merge
from gateway.fanout.plan import Plan
from gateway.fanout.planned import Plans
from gateway.fanout.run import MESSAGE_BYTES, Order, Run
from gateway.fanout.sight import Sight
from gateway.services.caller import current_caller
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceServicer as Base
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.call import current_call
from llmesh.errors import DeadlineExceeded, InvalidCall, Violation

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Untyped, Untyped]

# Of the methods that a caller may not call, how many are told by name.
DENIED_MOST = 256


@dataclass(frozen=True, slots=True)
class _Asked:
    """A fan-out that has been checked whole, and of which nothing has been sent."""

    plan: Plan
    respondents: Sequence[Respondent]
    progress: Progress
    gathered: Gathered | None


class MeshServicer(Base):
    """Sends one request to many tools."""

    def __init__(self, sight: Sight, legs: Legs, mint: Mint, counts: Counts, *, clock: Clock) -> None:
        """sight: what callers may see. mint: writes the tokens of branches. counts: told of each fan-out."""
        self._clock = clock
        self._counts = counts
        self._plans = Plans(sight)
        self._legs = legs
        self._mint = mint
        self._retries: Allowance = retries()

    async def FanOut(self, request: pb.FanOutRequest, context: Context) -> AsyncIterator[pb.FanOutResponse]:
        """What comes of each branch, then the summary."""
        call = current_call()
        behalf = behalf_of(current_caller(), call.call_id, context.invocation_metadata() or ())
        asked = self._check(request, behalf)
        self._legs.room.check(behalf.key, len(asked.respondents))
        remaining_s = call.remaining_s
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded("the deadline had passed before anything was sent")
        budget = split(remaining_s)
        paths = [each.path for each in asked.respondents]
        order = Order(
            asked.respondents,
            Request(request.request.value),
            behalf.metadata(paths, self._mint, timeout_s=budget.call_s, now_s=self._clock.unix_s()),
            caller=behalf.key,
            deadline_s=asyncio.get_running_loop().time() + budget.branch_s,
        )
        run = Run(self._legs, order, asked.progress, retries=self._retries, gathered=asked.gathered)
        with self._legs.room.holding(behalf.key, request.ByteSize()), self._counts.of(run):
            async with aclosing(run.messages()) as messages:
                async for news in messages:
                    for response in self._told(run, asked, news):
                        yield response

    def _told(self, run: Run, asked: _Asked, news: pb.FanOutResponse) -> Iterator[pb.FanOutResponse]:
        """What is told of these branches, and at the end the summary."""
        self._counts.told(news.branches)
        if run.over:
            summary = _summary(run, asked)
            # What one answer and the message of all come to need not fit one.
            if news.branches and news.ByteSize() + summary.ByteSize() > MESSAGE_BYTES:
                yield news
                news = pb.FanOutResponse()
            news.summary.CopyFrom(summary)
        yield news

    def _check(self, request: pb.FanOutRequest, behalf: Behalf) -> _Asked:
        """All that can be wrong with a fan-out. Raises InvalidCall or NotFound."""
        name = _type_name(request.request)
        planned = self._plans.of(name, request, behalf)
        _check_request(planned.asked, request.request)
        respondents = planned.respondents
        begun = progress(request.completion, request.quorum, len(respondents))
        gathered = _gathered(request.merge, planned.asked, respondents) if request.HasField("merge") else None
        return _Asked(planned.plan, respondents, begun, gathered)


def _type_name(request: Any) -> str:
    if not request.type_url.startswith(TYPES) or not request.type_url.removeprefix(TYPES):
        what = f"is `{request.type_url[:256]}`, and must be `{TYPES}` and the full name of the request's type"
        raise InvalidCall(f"`request.type_url` {what}", [Violation("request.type_url", what)], reason="BAD_TYPE")
    return request.type_url.removeprefix(TYPES)


def _check_request(asked: type[Message], request: Any) -> None:
    try:
        asked.FromString(request.value)
    except DecodeError as err:
        what = f"is no `{asked.DESCRIPTOR.full_name}`"
        raise InvalidCall(f"`request.value` {what}", [Violation("request.value", what)], reason="MALFORMED") from err


def _gathered(stated: options.Merge, asked: type[Message], respondents: Sequence[Respondent]) -> Gathered:
    """What answers are merged by. Raises InvalidCall if these methods' answers cannot be."""
    first = respondents[0]
    for each in respondents:
        method = each.taker.method
        if method.server_streaming or method.response_type != first.taker.method.response_type:
            what = f"is not possible: `{each.taker.name}` gives " + (
                "a stream"
                if method.server_streaming
                else f"`{method.response_type}`, and `{first.taker.name}` `{first.taker.method.response_type}`"
            )
            raise InvalidCall(f"`merge` {what}", [Violation("merge", what)], reason="BAD_MERGE")
    if stated.WhichOneof("how") is None:
        stated = asked.DESCRIPTOR.GetOptions().Extensions[options.capability].merge
    return Gathered(read_merge(stated, first.response))


def _summary(run: Run, asked: _Asked) -> pb.Summary:
    done, plan = run.progress, asked.plan
    summary = pb.Summary(
        end=run.end or pb.Summary.END_UNSPECIFIED,
        met=done.met,
        asked_count=done.asked,
        answered_count=done.answered,
        failed_count=done.failed,
        cancelled_count=done.asked - done.answered - done.failed,
        denied_count=plan.denied_count,
        denied=plan.denied[:DENIED_MOST],
        unasked_count=plan.unasked_count,
    )
    if asked.gathered:
        merged = asked.gathered.merged() if done.met else "not enough have answered"
        if isinstance(merged, str):
            summary.unmerged = merged
        elif merged.ByteSize() > RESPONSE_MAX_BYTES:
            summary.unmerged = f"the merged message has more than {RESPONSE_MAX_BYTES} bytes"
        else:
            summary.merged.Pack(merged)
    return summary
