"""One fan-out under way: its branches, what has come of them, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import grpc
import grpc.aio

from gateway.fanout.allowances import Allowance
from gateway.fanout.branch import CANCELLED, EXPIRED, Outcome, Respondent, outcome_of
from gateway.fanout.completion import Ends, Progress
from gateway.fanout.legs import Leg, Legs, Metadata
from gateway.fanout.merge import Gathered
from gateway.fanout.room import crowded
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.errors import MeshError
from llmesh.status import status_from_error

__all__ = ["MESSAGE_BYTES", "Order", "Run"]

_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
SENT_MOST = 2
# What is told in one message, but for a single branch that is larger; gRPC's clients take 4 MiB of themselves.
MESSAGE_BYTES = 1 << 20
# What a stream may be ahead of the reader, beside the response that goes beyond it.
AHEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Order:
    """What a fan-out sends. metadata: what goes with a call of each path. deadline_s: by the loop's clock."""

    respondents: Sequence[Respondent]
    request: bytes
    metadata: Mapping[str, Metadata]
    caller: Hashable
    deadline_s: float


@dataclass(eq=False, slots=True)
class _Branch:
    """One method's part. leg: the last one; None where none could be sent, and once all has been told."""

    respondent: Respondent
    began_s: float = 0.0
    leg: Leg | None = None
    sent: int = 0
    # Responses that nobody was told yet, and what they come to.
    held: list[bytes] = field(default_factory=list[bytes])
    held_bytes: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether there is no more to come of its leg.
    over: bool = False
    # Whether there was no room for what came.
    crowded: bool = False
    # Set once it has ended.
    outcome: Outcome | None = None
    told: bool = False

    @property
    def streams(self) -> bool:
        return self.respondent.taker.method.server_streaming

    @property
    def size_bytes(self) -> int:
        """About what is to be told of it now."""
        told = self.outcome
        return self.held_bytes + (len(told.provenance) + told.status.ByteSize() if told else 0)

    def hold(self, data: bytes, size: int) -> None:
        self.held.append(data)
        self.held_bytes += size

    def take(self) -> list[bytes]:
        taken, self.held, self.held_bytes = self.held, [], 0
        self.room.set()
        return taken


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
        self._branches = [_Branch(respondent) for respondent in order.respondents]
        # Those of which there is something to tell, in that order.
        self._news: dict[_Branch, None] = {}
        self._wake = asyncio.Event()
        # Of answers that the caller may yet be told, and of those that the message under way tells.
        self._held_bytes = self._telling_bytes = 0
        # What comes then is not held.
        self._closed = False

    async def messages(self) -> AsyncGenerator[list[pb.Branch]]:
        """What comes of the branches, as much at once as there is and a message holds. The last may be empty.

        However this ends, every leg is given up that has not ended.
        """
        timer = asyncio.get_running_loop().call_at(self._order.deadline_s, self._expire)
        try:
            for branch in self._branches:
                self._send(branch)
            while not self.over:
                await self._wake.wait()
                self._wake.clear()
                while (self._news or self.end is not None) and not self.over:
                    told = await self._next()
                    if self.end is not None:
                        told += self._rest()
                        self.over = True
                    if told or self.over:
                        yield told
                        self._let_go()
        finally:
            timer.cancel()
            self._close_all()

    def _close_all(self) -> None:
        self._closed = True
        expired = self.end == Ends.END_DEADLINE
        for branch in self._branches:
            branch.room.set()
            if branch.leg is not None:
                self._legs.release(branch.leg, expired=expired)
        self._drop(self._held_bytes)

    def _hold(self, size: int) -> bool:
        """Whether an answer of that size is to be held until it has been told."""
        if self._closed or not self._legs.room.hold(self._order.caller, size):
            return False
        self._held_bytes += size
        return True

    def _let_go(self) -> None:
        """The caller has been told, and has made room for more; but what is to be merged is kept."""
        if self._gathered is None or self._gathered.is_over:
            self._drop(self._telling_bytes)
        self._telling_bytes = 0

    def _drop(self, size: int) -> None:
        self._legs.room.let_go(self._order.caller, size)
        self._held_bytes -= size

    def _expire(self) -> None:
        if self.end is None:
            self.end = Ends.END_DEADLINE
        self._wake.set()

    def _tell(self, branch: _Branch) -> None:
        self._news[branch] = None
        self._wake.set()

    def _send(self, branch: _Branch) -> None:
        path = f"/{branch.respondent.taker.name}"
        branch.sent, branch.over = branch.sent + 1, False
        branch.began_s = branch.began_s or asyncio.get_running_loop().time()
        try:
            branch.leg = self._legs.start(
                path,
                self._order.request,
                self._order.metadata[path],
                caller=self._order.caller,
                kept=None if branch.streams else partial(self._keep, branch),
                ended=lambda _: None if branch.streams else self._over(branch),
            )
        except MeshError as err:
            branch.outcome = Outcome(status_from_error(err))
            self._tell(branch)
            return
        if branch.streams:
            self._legs.keep(asyncio.create_task(self._read(branch, branch.leg)))

    async def _read(self, branch: _Branch, leg: Leg) -> None:
        """Read a stream, no further ahead of the reader than AHEAD_BYTES and one response."""
        call = cast("grpc.aio.UnaryStreamCall[bytes, bytes]", leg.call)
        # Read to its end even if nobody wants it any more: to cancel this task would leak like `call.cancel()`.
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while isinstance(data := await call.read(), bytes):
                leg.answered = True
                size = branch.respondent.size_bytes(data)
                if self.end is not None or not self._hold(size):
                    branch.crowded = True
                    self._legs.release(leg)
                    continue
                branch.hold(data, size)
                self._tell(branch)
                if branch.held_bytes >= AHEAD_BYTES:
                    branch.room.clear()
                    await branch.room.wait()
        self._over(branch)

    def _keep(self, branch: _Branch, answer: bytes | None) -> bytes | None:
        """What is kept of a branch's one answer, if there is one: nothing where there is no room."""
        branch.crowded = answer is not None and not self._hold(len(answer))
        return None if branch.crowded else answer

    def _over(self, branch: _Branch) -> None:
        branch.over = True
        self._tell(branch)

    async def _next(self) -> list[pb.Branch]:
        """As much of the news as fits a message."""
        told: list[pb.Branch] = []
        size = 0
        while self._news and self.end is None:
            branch = next(iter(self._news))
            if branch.outcome is None and branch.over and branch.leg is not None:
                await self._settle(branch, branch.leg)
            if told and size + branch.size_bytes > MESSAGE_BYTES:
                break
            size += branch.size_bytes
            del self._news[branch]
            if branch.held or branch.outcome is not None:
                told.append(self._entry(branch))
        return told

    async def _settle(self, branch: _Branch, leg: Leg) -> None:
        """See how a leg ended that is over; a branch that may be is sent again."""
        outcome = await outcome_of(leg.call)
        if branch.crowded:
            branch.outcome = replace(outcome, status=status_from_error(crowded()), response=None)
            return
        if self._is_sent_again(branch, outcome):
            self._legs.release(leg)
            self._send(branch)
            return
        if outcome.status.code == 0 and not branch.streams:
            answer = outcome.response
            message = None if answer is None else branch.respondent.read(answer)
            if answer is None or message is None:
                self._drop(len(answer or b""))
                outcome = replace(outcome, status=branch.respondent.lies(), response=None)
            else:
                branch.hold(answer, len(answer))
                if self._gathered:
                    self._gathered.add(branch.respondent.taker.name, message)
        branch.outcome = outcome

    def _is_sent_again(self, branch: _Branch, outcome: Outcome) -> bool:
        """Whether a call that Envoy did not answer, and that may be made twice, is made once more."""
        return (
            outcome.status.code == _UNAVAILABLE
            and not outcome.call_id
            and branch.respondent.taker.method.idempotent
            and branch.sent < SENT_MOST
            and not (branch.leg and branch.leg.answered)
            and self._retries.use()
        )

    def _entry(self, branch: _Branch) -> pb.Branch:
        """What is told of a branch now."""
        method = branch.respondent.taker.method.name
        entry = pb.Branch(tool=branch.respondent.taker.tool.service, method=method)
        self._telling_bytes += branch.held_bytes
        entry.responses.extend(branch.respondent.packed(data) for data in branch.take())
        if branch.outcome is not None and not branch.told:
            branch.told = True
            if branch.leg is not None:
                self._legs.release(branch.leg)
                branch.leg = None
            ok = branch.outcome.status.code == 0
            self.progress.count(ok=ok)
            if ok:
                self._retries.earn()
            self._close(entry, branch, branch.outcome)
            self.end = self.end or self.progress.end()
        return entry

    def _close(self, entry: pb.Branch, branch: _Branch, outcome: Outcome) -> None:
        entry.status.CopyFrom(outcome.status)
        took_s = asyncio.get_running_loop().time() - branch.began_s
        entry.latency.FromMicroseconds(round(took_s * 1e6))
        entry.attempt_count = branch.sent
        entry.call_id = outcome.call_id
        entry.provenance = outcome.provenance

    def _rest(self) -> list[pb.Branch]:
        """What is told of the branches that the fan-out ends."""
        told: list[pb.Branch] = []
        for branch in self._branches:
            if not branch.told:
                taker = branch.respondent.taker
                entry = pb.Branch(tool=taker.tool.service, method=taker.method.name)
                self._close(entry, branch, Outcome(EXPIRED if self.end == Ends.END_DEADLINE else CANCELLED))
                told.append(entry)
        return told
