"""The mesh's own calls of tools: through Envoy's private listener, where all that holds for callers holds for them.

Giving up calls must not end their caller's connection, and with it what else
they ask: `release` sees to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any as Untyped

import grpc
import grpc.aio

from gateway.fanout.allowances import YOUNG_S, Allowance
from gateway.fanout.lines import RESPONSE_MAX_BYTES, Line, Lines
from gateway.fanout.room import Room
from gateway.http2.call import Call
from gateway.http2.fields import block_of, request_block
from gateway.http2.reply import Answer, Reply, framed

__all__ = ["Leg", "Legs", "Metadata", "Request", "Stream"]

# Bytes out. What gRPC declares as Any: no type is known here.
Stream = grpc.aio.UnaryStreamCall[Untyped, Untyped]

# How long a call whose time is up may take to be ended by Envoy, which ends it just then.
EXPIRY_S = 0.25


def _nothing() -> None:
    pass


def _nobody(_: Answer) -> None:
    pass


def _none(_: int) -> bool:
    return False


@dataclass(frozen=True)
class Metadata:
    """What goes with calls."""

    pairs: Sequence[tuple[str, str]]

    @cached_property
    def block(self) -> bytes:
        """As it is sent. Made once, however many calls it goes with."""
        return block_of(self.pairs)


@dataclass(frozen=True)
class Request:
    """What is asked in calls."""

    message: bytes

    @cached_property
    def body(self) -> bytes:
        """As it is sent. Made once, however many calls send it."""
        return framed(self.message)


@dataclass(eq=False, slots=True)
class Leg:
    """One call. resets: of its connection. began_s: by the loop's clock. cancel: breaks it off."""

    line: Line
    resets: Allowance
    caller: Hashable
    tool: str
    began_s: float
    cancel: Callable[[], None] = _nothing
    # Of a call that has not ended, who is told that it has.
    tells: Callable[[Answer], None] = _nobody
    # None of a stream, and once it has ended.
    call: Call | None = None
    # Whether it has given a response, whether it has ended, and whether nobody wants it any more.
    answered: bool = False
    over: bool = False
    released: bool = False
    cancelled: bool = False
    # Set while it is to be cancelled later.
    cancelling: asyncio.TimerHandle | None = None

    @property
    def is_answered(self) -> bool:
        """Whether some of its answer has come."""
        return self.answered or (self.call is not None and self.call.reply.has_begun)

    @property
    def waits(self) -> bool:
        """Whether it has not been sent, and waits for Envoy; of one that has not ended."""
        if self.call is not None:
            return self.call.bearer is None
        # gRPC does not tell it of a call.
        return self.line.channel.get_state() is not grpc.ChannelConnectivity.READY


@dataclass(eq=False, slots=True)
class Legs:
    """All legs of this process, the lines they go by, and the room they take.

    Whoever begins a leg releases it, once what came of it has been told.
    """

    lines: Lines
    room: Room = field(default_factory=Room)
    # Those that have not ended, given up or not.
    count: int = 0
    # Those that read streams.
    _readers: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def close(self) -> None:
        """End every leg, and the connections."""
        await self.lines.close()

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
        """Call a method that gives one answer.

        holds: whether so many bytes more of the answer may be held. ended: told once the leg is over. Neither is asked
        or told once the leg is released. Raises OverQuota if the tool or the caller has as many legs as it may.
        """
        head = request_block(path) + metadata.block
        leg = self._begin(path, caller, streams=False)

        def end(answer: Answer) -> None:
            tells = leg.tells
            self._end(leg)
            tells(answer)

        call = Call(head, request.body, Reply(RESPONSE_MAX_BYTES), holds, end)
        leg.call, leg.cancel, leg.tells = call, partial(leg.line.wire.cancel, call), ended
        leg.line.wire.start(call)
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
        """Call a method that gives a stream. reading: reads it to its end, in a task of its own. Raises OverQuota."""
        leg = self._begin(path, caller, streams=True)
        # Without types: what is sent and given are bytes.
        channel: Untyped = leg.line.channel
        call = channel.unary_stream(path)(request.message, metadata=metadata.pairs, wait_for_ready=True)
        leg.cancel = partial(_cancel, call)

        def end(_: object) -> None:
            self._end(leg)

        call.add_done_callback(end)
        reader = asyncio.create_task(reading(leg, call))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return leg

    def _begin(self, path: str, caller: Hashable, *, streams: bool) -> Leg:
        tool = path[1 : path.rindex("/")]
        self.room.enter(caller, tool)
        self.count += 1
        line = self.lines.take(caller)
        resets = line.channel_resets if streams else line.wire_resets
        return Leg(line, resets, caller, tool, asyncio.get_running_loop().time())

    def _end(self, leg: Leg) -> None:
        leg.over = True
        # They hold on to what holds the leg.
        leg.call, leg.cancel, leg.tells = None, _nothing, _nobody
        self.count -= 1
        self.room.end(leg.caller, leg.tool)
        self.lines.give_back(leg.caller, leg.line)
        if leg.released:
            self.room.leave(leg.caller)
        if leg.cancelling is not None:
            leg.cancelling.cancel()
        if not leg.cancelled:
            leg.resets.earn()

    def release(self, leg: Leg, *, expired: bool = False) -> None:
        """Give a leg up: it is cancelled now, or once that harms no other. expired: its time is up.

        From now on it is not sent any more, nor sent again.
        """
        if leg.over:
            if not leg.released:
                self.room.leave(leg.caller)
            leg.released = True
            return
        leg.released = True
        if leg.cancelled:
            return
        # What these hold on to is the fan-out, with all that its other branches gave.
        leg.tells = _nobody
        if leg.call is not None:
            leg.call.wanted, leg.call.holds = False, _none
        if leg.waits:
            # There is no stream to reset.
            self._break_off(leg)
            return
        loop = asyncio.get_running_loop()
        age_s = loop.time() - leg.began_s
        if expired:
            leg.cancelling = loop.call_later(EXPIRY_S, self.release, leg)
        elif leg.is_answered or age_s > YOUNG_S or leg.resets.use():
            self._break_off(leg)
        else:
            leg.cancelling = loop.call_later(YOUNG_S - age_s, self._break_off, leg)
        if leg.call is not None:
            leg.call.let_go()

    def _break_off(self, leg: Leg) -> None:
        leg.cancelled = True
        leg.cancel()


def _cancel(call: Stream) -> None:
    # `call.cancel()` also cancels the task that waits for the answer, and gRPC then keeps 0.9 KB of each call for ever
    # (grpc/grpc#43360, 1.85).
    untyped: Untyped = call
    untyped._cython_call.cancel("not needed any more")  # noqa: SLF001
