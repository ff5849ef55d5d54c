"""The mesh's own calls of tools: through Envoy's private listener, where all that holds for callers holds for them.

Giving up calls must not end their caller's connection, and with it what else
they ask: `release` sees to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any as Untyped

import grpc
import grpc.aio

from gateway.fanout.allowances import YOUNG_S
from gateway.fanout.lines import Line, Lines
from gateway.fanout.room import Room

__all__ = ["Call", "Leg", "Legs", "Metadata"]

Metadata = Sequence[tuple[str, str | bytes]]
# Bytes in, bytes out. What gRPC declares as Any: no type is known here.
Call = grpc.aio.UnaryUnaryCall[Untyped, Untyped] | grpc.aio.UnaryStreamCall[Untyped, Untyped]

# How long a call whose time is up may take to be ended by Envoy, which ends it just then.
EXPIRY_S = 0.25


@dataclass(eq=False, slots=True)
class Leg:
    """One call. began_s: by the loop's clock. answered: it has given a response. released: nobody wants it any more."""

    call: Call
    line: Line
    caller: Hashable
    began_s: float
    answered: bool = False
    released: bool = False
    # Set while it is to be cancelled later.
    cancelling: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class Legs:
    """All legs of this process, the lines they go by, and the room they take."""

    lines: Lines
    room: Room = field(default_factory=Room)
    # Those that have not ended, given up or not.
    _open: set[Leg] = field(default_factory=set[Leg])
    # Those that read streams.
    _readers: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def count(self) -> int:
        """How many have not ended, those included that were given up."""
        return len(self._open)

    async def close(self) -> None:
        """End every leg, and the connections."""
        await self.lines.close()

    def start(
        self,
        path: str,
        request: bytes,
        metadata: Metadata,
        *,
        caller: Hashable,
        kept: Callable[[bytes], bytes | None] | None,
        ended: Callable[[Leg], None],
    ) -> Leg:
        """Call a method. Whoever starts a leg releases it, once what came of it has been told.

        kept: what is kept of the one answer, told as soon as that is there; None for a method that answers with a
        stream. ended: told once the leg is over. Raises OverQuota if the tool or the caller has as many legs as it may.
        """
        tool = path.rpartition("/")[0][1:]
        self.room.enter(caller, tool)
        line = self.lines.take(caller)
        # Without types: what is sent and given are bytes.
        channel: Untyped = line.channel
        method = channel.unary_unary(path, response_deserializer=kept) if kept else channel.unary_stream(path)
        call = method(request, metadata=metadata, wait_for_ready=True)
        leg = Leg(call, line, caller, asyncio.get_running_loop().time())
        self._open.add(leg)

        def end(_: object) -> None:
            self.room.end(caller, tool)
            self._end(leg)
            ended(leg)

        leg.call.add_done_callback(end)
        return leg

    def keep(self, reader: asyncio.Task[None]) -> None:
        """Hold a task that reads a leg's stream; it ends with the leg."""
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    def _end(self, leg: Leg) -> None:
        self._open.discard(leg)
        self.lines.give_back(leg.caller, leg.line)
        if leg.released:
            self.room.leave(leg.caller)
        if leg.cancelling is not None:
            leg.cancelling.cancel()
        if not leg.call.cancelled():
            leg.line.resets.earn()

    def release(self, leg: Leg, *, expired: bool = False) -> None:
        """Give a leg up: it is cancelled now, or once that harms no other. expired: its time is up."""
        ended = leg not in self._open
        if ended and not leg.released:
            self.room.leave(leg.caller)
        leg.released = True
        if ended or leg.call.done():
            return
        loop = asyncio.get_running_loop()
        age_s = loop.time() - leg.began_s
        if expired:
            leg.cancelling = loop.call_later(EXPIRY_S, self.release, leg)
        elif leg.answered or age_s > YOUNG_S or leg.line.resets.use():
            _cancel(leg.call)
        else:
            leg.cancelling = loop.call_later(YOUNG_S - age_s, _cancel, leg.call)


def _cancel(call: Call) -> None:
    # `call.cancel()` also cancels the task that waits for the answer, and gRPC then keeps 0.9 KB of each call for ever
    # (grpc/grpc#43360, 1.85).
    untyped: Untyped = call
    untyped._cython_call.cancel("not needed any more")  # noqa: SLF001
