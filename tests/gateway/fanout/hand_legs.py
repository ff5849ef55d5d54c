"""A fan-out whose legs end exactly when and as a test says, which no real tool can be made to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any as Untyped
from typing import cast

import grpc

from gateway.fanout.allowances import retries
from gateway.fanout.branch import Respondent
from gateway.fanout.completion import progress
from gateway.fanout.legs import Leg, Legs, Metadata, Request, Stream
from gateway.fanout.run import Order, Run
from gateway.fanout.takers import Taker
from gateway.http2.reply import Answer
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveResponse
from llmesh.errors import OverQuota
from tests.eventually import eventually
from tests.gateway.fanout.world import EIGHT, passages, rpc, tool_of

EXHAUSTED, LATE = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE.value[0], grpc.StatusCode.INTERNAL.value[0]
# What Envoy has answered, which is not sent again.
SEEN = {b"x-llmesh-call-id": b"id"}
CONCATENATE = options.Merge(concatenate=options.Concatenate(field="passages"))


@dataclass(eq=False, slots=True)
class Items:
    """A stream that gives what a test puts in, and ends well where that is empty."""

    given: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue[bytes])

    async def read(self) -> object:
        """The next, once there is one."""
        return await self.given.get() or grpc.aio.EOF

    async def code(self) -> grpc.StatusCode:
        """How it has ended."""
        return grpc.StatusCode.OK

    async def details(self) -> str:
        """In words."""
        return ""

    async def initial_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def trailing_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()


@dataclass(eq=False, slots=True)
class HandLegs(Legs):
    """Legs that a test ends, by the tool asked. refused: which calls are, by their number, from 0."""

    asked: dict[str, Callable[[Answer], None]] = field(default_factory=dict[str, Callable[[Answer], None]])
    streams: dict[str, Items] = field(default_factory=dict[str, Items])
    refused: set[int] = field(default_factory=set[int])
    tried: int = 0
    # The tools whose legs have been given up, or were told.
    released: set[str] = field(default_factory=set[str])

    def release(self, leg: Leg, *, expired: bool = False) -> None:
        """As the real one."""
        self.released.add(leg.tool)
        Legs.release(self, leg, expired=expired)

    def ask(
        self,
        path: str,
        request: Request,
        metadata: Metadata,
        *,
        caller: Hashable,
        holds: Callable[[int], bool],
        ended: Callable[[Answer], None],
    ) -> Leg:
        """As the real one, but sends nothing."""
        del request, metadata
        self._refuse()
        leg = self._begin(path, caller, streams=False)

        def end(answer: Answer) -> None:
            tells = leg.tells
            if answer.response is not None and not leg.released:
                assert holds(len(answer.response))
            self._end(leg)
            tells(answer)

        self.asked[leg.tool], leg.tells = end, ended
        return leg

    def read(
        self,
        path: str,
        request: Request,
        metadata: Metadata,
        *,
        caller: Hashable,
        reading: Callable[[Leg, Stream], Coroutine[None, None, None]],
    ) -> Leg:
        """As the real one, but sends nothing."""
        del request, metadata
        self._refuse()
        leg = self._begin(path, caller, streams=True)
        items = self.streams[leg.tool] = Items()
        reader = asyncio.create_task(reading(leg, cast("Stream", items)))
        self._readers.add(reader)
        return leg

    def _refuse(self) -> None:
        self.tried += 1
        if self.tried - 1 in self.refused:
            raise OverQuota("no more", retry_after_s=1, quota="branches of a tool")

    def answer(self, name: str, text: str = "found", *, size: int = 0) -> None:
        """A leg ends with one passage. size: about how long."""
        self.asked[name](Answer(0, "", passages((text + "x" * size, 1)), SEEN))

    async def stop(self) -> None:
        """End what reads."""
        for reader in self._readers:
            reader.cancel()
        await self.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What a run has told."""

    messages: Sequence[pb.FanOutResponse]

    @property
    def codes(self) -> dict[str, int]:
        """Of the branches that have ended, by tool."""
        branches = [each for message in self.messages for each in message.branches if each.HasField("status")]
        codes = {each.tool: each.status.code for each in branches}
        assert len(codes) == len(branches)
        return codes

    @property
    def responses(self) -> dict[str, int]:
        """How many each tool's branch gave."""
        counts: dict[str, int] = {}
        for each in (each for message in self.messages for each in message.branches):
            counts[each.tool] = counts.get(each.tool, 0) + len(each.responses)
        return counts


@dataclass(frozen=True, slots=True)
class Running:
    """A run whose messages are taken one by one."""

    run: Run
    legs: HandLegs
    messages: AsyncGenerator[pb.FanOutResponse]

    def expire(self) -> None:
        """Its deadline has come."""
        self.run._expire()  # pyright: ignore[reportPrivateUsage]

    async def rest(self, *before: pb.FanOutResponse) -> Told:
        """What it tells to its end."""
        return Told([*before, *[message async for message in self.messages]])

    async def begun(self) -> asyncio.Task[pb.FanOutResponse]:
        """Its first message, to be waited for; all legs are sent."""
        first = asyncio.ensure_future(anext(self.messages))

        async def all_are_sent() -> None:
            assert self.legs.tried >= self.run.progress.asked

        await eventually(all_are_sent)
        return first


def started(
    count: int, legs: HandLegs, *, completion: Untyped = pb.COMPLETION_ALL, streams: bool = False, **facts: Untyped
) -> Running:
    """A run over so many tools that read, with an hour. facts: quorum, gathered, retries."""
    order = order_of(count, streams=streams)
    begun = progress(completion, facts.get("quorum", 0), count)
    made = Run(legs, order, begun, retries=facts.get("retries") or retries(), gathered=facts.get("gathered"))
    return Running(made, legs, made.messages())


def order_of(count: int, *, streams: bool) -> Order:
    method = rpc(streams=streams)
    tools = [tool_of(name, method, address="unix:none") for name in EIGHT[:count]]
    takers = [Taker(tool, tool.methods[0], f"{tool.service}/{tool.methods[0].name}") for tool in tools]
    respondents = [Respondent(taker, RetrieveResponse) for taker in takers]
    metadata = {each.path: Metadata(()) for each in respondents}
    deadline_s = asyncio.get_running_loop().time() + 3600
    return Order(respondents, Request(b""), metadata, caller="sam", deadline_s=deadline_s)
