"""One fan-out under way: its branches, what has come of them, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any as Untyped

import grpc
import grpc.aio

from gateway.fanout.allowances import Allowance
from gateway.fanout.branch import CANCELLED, EXPIRED, Branch, Outcome, Respondent, outcome_of, outcome_of_stream
from gateway.fanout.completion import Ends, Progress
from gateway.fanout.legs import Leg, Legs, Metadata, Request, Stream
from gateway.fanout.merge import Gathered
from gateway.fanout.room import crowded
from gateway.http2.reply import Answer
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.errors import MeshError
from llmesh.status import status_from_error

__all__ = ["MESSAGE_BYTES", "Order", "Run"]

CROWDED = status_from_error(crowded())
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
SENT_MOST = 2
# What is told in one message, but for a single branch that is larger; gRPC's clients take 4 MiB of themselves.
MESSAGE_BYTES = 1 << 20
# What a stream may be ahead of the reader, beside the response that goes beyond it.
AHEAD_BYTES = 1 << 16
# How long news waits for more, which it is told with: each message costs as much as a branch.
GATHER_S = 0.005


@dataclass(frozen=True, slots=True)
class Order:
    """What a fan-out sends. metadata: what goes with a call of each path. deadline_s: by the loop's clock."""

    respondents: Sequence[Respondent]
    request: Request
    metadata: Mapping[str, Metadata]
    caller: Hashable
    deadline_s: float


class Run:
    """A fan-out. Its messages are taken once; then `progress` and `end` tell how it went."""

    def __init__(
        self,
        legs: Legs,
        order: Order,
        progress: Progress,
        *,
        retries: Allowance,
        gathered: Gathered | None,
    ) -> None:
        """Nothing is sent yet. gathered: takes the answers, if they are to be merged."""
        self.progress = progress
        self.end: pb.Summary.End.ValueType | None = None
        # Set with the last message.
        self.over = False
        self._legs = legs
        self._order = order
        self._retries = retries
        self._gathered = gathered
        self._branches = [Branch(respondent) for respondent in order.respondents]
        # Those of which there is something to tell, in that order.
        self._news: dict[Branch, None] = {}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Wakes it later.
        self._gathering: asyncio.TimerHandle | None = None
        # Legs that have not ended, and those that were never sent.
        self._under_way = len(self._branches)
        # Of answers that are held, and of those of them that have been told, or that the message under way tells.
        self._held_bytes = self._told_bytes = 0
        # Whether legs that had not ended have been given up: what comes then is not held.
        self._given_up = False

    async def messages(self) -> AsyncGenerator[pb.FanOutResponse]:
        """What comes of the branches, as much at once as there is and a message holds. The last may be empty.

        However this ends, every leg is given up that has not ended.
        """
        timer = self._loop.call_at(self._order.deadline_s, self._expire)
        try:
            for branch in self._branches:
                self._start(branch)
            while not self.over:
                await self._news_there()
                while (self._news or self.end is not None) and not self.over:
                    response = self._next()
                    if self.end is not None and not self._news:
                        self._tell_rest(response)
                        self.over = True
                    if response.branches or self.over:
                        yield response
                        self._let_go()
        finally:
            timer.cancel()
            self._give_up()
            self._forget()

    async def _news_there(self) -> None:
        """Return when there is something to tell, and nothing more is worth waiting for."""
        await self._wake.wait()
        self._wake.clear()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _end(self, end: pb.Summary.End.ValueType | None) -> None:
        """End now, unless it has ended or that is None. What had come by now is told yet."""
        if self.end is None and end is not None:
            self.end = end
            self._give_up()

    def _give_up(self) -> None:
        """Nobody waits any more for what has not ended."""
        self._given_up = True
        expired = self.end == Ends.END_DEADLINE
        for branch in self._branches:
            if branch.room is not None:
                branch.room.set()
            if branch.leg is not None:
                self._legs.release(branch.leg, expired=expired)
            self._drop(branch.coming_bytes)
            branch.coming_bytes = 0

    def _forget(self) -> None:
        """Keep nothing: streams that are to be broken off later have hold of this until then."""
        self._drop(self._held_bytes)
        self._news.clear()
        self._gathered = None
        self._order = replace(self._order, request=Request(b""))
        for branch in self._branches:
            branch.forget()

    def _hold(self, size: int) -> bool:
        """Whether an answer of that size is to be held until it has been told."""
        if self._given_up or not self._legs.room.hold(self._order.caller, size):
            return False
        self._held_bytes += size
        return True

    def _let_go(self) -> None:
        """The caller has been told, and has made room for more; but what is to be merged is kept."""
        kept = min(self._told_bytes, self._gathered.kept_bytes) if self._gathered else 0
        self._drop(self._told_bytes - kept)
        self._told_bytes = kept

    def _drop(self, size: int) -> None:
        self._legs.room.let_go(self._order.caller, size)
        self._held_bytes -= size

    def _expire(self) -> None:
        self._end(Ends.END_DEADLINE)
        self._wake.set()

    def _tell(self, branch: Branch) -> None:
        if self.end is not None:
            return
        self._news[branch] = None
        if not (self._under_way and self.progress.patient) or branch.held_bytes >= AHEAD_BYTES:
            self._wake.set()
        elif self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_S, self._wake.set)

    def _start(self, branch: Branch) -> None:
        branch.began_s = self._loop.time()
        try:
            self._send(branch)
        except MeshError as err:
            branch.outcome, branch.ended_s = Outcome(status_from_error(err)), self._loop.time()
            self._under_way -= 1
            self._tell(branch)

    def _send(self, branch: Branch) -> None:
        """Begin a leg. Raises OverQuota if there may be none."""
        path = branch.respondent.path
        sent = path, self._order.request, self._order.metadata[path]
        caller = self._order.caller
        if branch.streams:
            branch.leg = self._legs.read(*sent, caller=caller, reading=partial(self._read, branch))
        else:
            holds, ended = partial(self._holds, branch), partial(self._answered, branch)
            branch.leg = self._legs.ask(*sent, caller=caller, holds=holds, ended=ended)
        branch.sent += 1

    async def _read(self, branch: Branch, leg: Leg, call: Stream) -> None:
        """Read a stream, no further ahead of the reader than AHEAD_BYTES and one response."""
        branch.room = asyncio.Event()
        # Read to its end even if nobody wants it any more: to cancel this task would leak like `call.cancel()`.
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while isinstance(data := await call.read(), bytes):
                leg.answered = True
                if not self._takes(branch, data):
                    self._legs.release(leg)
                    continue
                self._tell(branch)
                if branch.held_bytes >= AHEAD_BYTES:
                    branch.room.clear()
                    await branch.room.wait()
        self._ended(branch, await outcome_of_stream(call))

    def _takes(self, branch: Branch, data: bytes) -> bool:
        """Whether a stream's next response is taken; after one that is not, no more are."""
        if self._given_up or branch.refused is not None:
            return False
        size = branch.respondent.size_bytes(data)
        if branch.respondent.read(data) is None:
            branch.refused = branch.respondent.lies()
        elif not self._hold(size):
            branch.refused = CROWDED
        else:
            branch.hold(data, size)
        return branch.refused is None

    def _holds(self, branch: Branch, size: int) -> bool:
        """Whether so much more of a branch's one answer is held: where there is no room, nothing of it."""
        if not self._hold(size):
            branch.refused = CROWDED
            return False
        branch.coming_bytes += size
        return True

    def _answered(self, branch: Branch, answer: Answer) -> None:
        if answer.response is None:
            self._drop(branch.coming_bytes)
        branch.coming_bytes = 0
        self._ended(branch, outcome_of(answer))

    def _ended(self, branch: Branch, outcome: Outcome) -> None:
        self._under_way -= 1
        # What comes once the fan-out has ended is too late, however long it takes to tell what came before.
        if self.end is None:
            branch.came, branch.ended_s = self._kept(branch, outcome), self._loop.time()
            self._tell(branch)

    def _kept(self, branch: Branch, outcome: Outcome) -> Outcome:
        """What is held of an outcome until it has been told: where there is no room for it, that there is none."""
        size = outcome.size_bytes
        if branch.refused is None and size and not self._hold(size):
            branch.refused = CROWDED
        if branch.refused is not None:
            self._drop(len(outcome.response or b""))
            return Outcome(branch.refused, call_id=outcome.call_id)
        branch.ending_bytes = size
        return outcome

    def _next(self) -> pb.FanOutResponse:
        """As much of the news as fits a message."""
        response = pb.FanOutResponse()
        size = 0
        while self._news:
            branch = next(iter(self._news))
            if branch.outcome is None and branch.came is not None and branch.leg is not None:
                self._settle(branch, branch.leg, branch.came)
            told_bytes = branch.size_bytes
            if size and size + told_bytes > MESSAGE_BYTES:
                break
            size += told_bytes + 1
            del self._news[branch]
            if branch.held or branch.outcome is not None:
                self._tell_of(branch, response)
        return response

    def _settle(self, branch: Branch, leg: Leg, outcome: Outcome) -> None:
        """See how a leg ended that is over; a branch that may be is sent again."""
        again = branch.refused is None and self._may_be_sent_again(branch, outcome)
        if again and self._send_again(branch, leg, outcome):
            return
        if outcome.status.code == 0 and not branch.streams:
            outcome = self._read_answer(branch, outcome)
        branch.came, branch.outcome = None, outcome

    def _read_answer(self, branch: Branch, outcome: Outcome) -> Outcome:
        """How a branch has ended that gave one answer, which is held to be told, if it is one."""
        answer = outcome.response
        message = None if answer is None else branch.respondent.read(answer)
        if answer is None or message is None:
            self._drop(len(answer or b""))
            return replace(outcome, status=branch.respondent.lies(), response=None)
        branch.hold(answer, len(answer))
        if self._gathered:
            self._gathered.add(branch.respondent.taker.name, message)
        return replace(outcome, response=None)

    def _send_again(self, branch: Branch, leg: Leg, outcome: Outcome) -> bool:
        """Whether there may be a leg more; if not, the branch has ended as it had."""
        self._legs.release(leg)
        self._under_way += 1
        branch.came = None
        try:
            self._send(branch)
        except MeshError:
            self._under_way -= 1
            branch.came = outcome
            return False
        self._retries.use()
        self._drop(branch.ending_bytes)
        branch.ending_bytes = 0
        return True

    def _may_be_sent_again(self, branch: Branch, outcome: Outcome) -> bool:
        """Whether a call is one that Envoy did not answer, and that may be made twice."""
        return (
            self.end is None
            and outcome.status.code == _UNAVAILABLE
            and not outcome.call_id
            and branch.respondent.taker.method.idempotent
            and branch.sent < SENT_MOST
            and not (branch.leg and branch.leg.answered)
            and self._retries.allows
        )

    def _tell_of(self, branch: Branch, response: pb.FanOutResponse) -> None:
        """What is told of a branch now."""
        self._told_bytes += branch.held_bytes
        outcome = branch.outcome if not branch.told else None
        entry = response.branches.add(**self._facts(branch, outcome))
        for data in branch.take():
            entry.responses.add(type_url=branch.respondent.type_url, value=data)
        if outcome is not None:
            self._told_bytes += branch.ending_bytes
            branch.told = True
            if branch.leg is not None:
                self._legs.release(branch.leg)
                branch.leg = None
            ok = outcome.status.code == 0
            self.progress.count(ok=ok)
            if ok:
                self._retries.earn()
            branch.forget()
            self._end(self.progress.end())

    def _facts(self, branch: Branch, outcome: Outcome | None) -> dict[str, Untyped]:
        """The fields of an entry but for its responses. outcome: if it is the branch's last."""
        taker = branch.respondent.taker
        told: dict[str, Untyped] = {"tool": taker.tool.service, "method": taker.method.name}
        if outcome is not None:
            told["status"] = outcome.status
            told["latency"] = timedelta(seconds=branch.ended_s - branch.began_s)
            told["attempt_count"] = branch.sent
            told["call_id"], told["provenance"] = outcome.call_id, outcome.provenance
        return told

    def _tell_rest(self, response: pb.FanOutResponse) -> None:
        """What is told of the branches that had not ended when the fan-out did."""
        outcome = Outcome(EXPIRED if self.end == Ends.END_DEADLINE else CANCELLED)
        for branch in self._branches:
            if not branch.told:
                branch.ended_s = self._loop.time()
                response.branches.add(**self._facts(branch, outcome))
