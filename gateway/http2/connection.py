"""One HTTP/2 connection, from the client's side, and the calls on it (RFC 9113).

Whatever the other side sends, what is held of it is bounded: of each call its
answer as far as there is room, and one block of header fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from grpc import StatusCode

from gateway.http2 import frames
from gateway.http2.call import ANSWER_WINDOW_BYTES, Call, Owner
from gateway.http2.fields import EMPTY_TABLE, FIELDS_MAX_BYTES, read
from gateway.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_MAX_BYTES,
    WINDOW_BYTES,
    Frames,
    Kind,
    PeerError,
    Reason,
    Setting,
)
from gateway.http2.reply import Answer, ReplyError, code_of

__all__ = ["Connection"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What the other side may send ahead of what was read, of all answers.
ALL_WINDOW_BYTES = 4 << 20
# Acknowledgements that it may have us owe, while it does not read them.
OWED_MOST = 1000
_LAST_STREAM = 0x7FFF_FFFF
_PING_BYTES = 8


class Connection(asyncio.Protocol):
    """One connection. It is spoken to from the loop's thread alone."""

    def __init__(self, owner: Owner[Connection]) -> None:
        """Not connected yet."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._frames = Frames()
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._most = _LAST_STREAM
        self._leaving = False
        # What goes out at the end of this turn of the loop.
        self._out: list[bytes] = []
        self._paused = False
        self._owed = 0
        # Calls whose request waits for room, in the order in which they came.
        self._stuck: dict[Call, None] = {}
        # How much the other side takes, of all and of each call at first, and how much we take.
        self._there = self._there_each = WINDOW_BYTES
        self._here = ALL_WINDOW_BYTES
        # Fields of a stream that have not all come, with the flags that they began with.
        self._block: tuple[int, int, bytearray] | None = None
        # What the next header block begins with.
        self._prefix = EMPTY_TABLE
        self._take: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.DATA: self._data,
            Kind.HEADERS: self._headers,
            Kind.CONTINUATION: self._continuation,
            Kind.RST_STREAM: self._reset,
            Kind.SETTINGS: self._settings,
            Kind.PING: self._ping,
            Kind.GOAWAY: self._goaway,
            Kind.WINDOW_UPDATE: self._more_room,
            Kind.PUSH_PROMISE: self._push,
        }

    @property
    def is_open(self) -> bool:
        """Whether one call more can be sent."""
        return self._transport is not None and not self._leaving and len(self._calls) < self._most

    def send(self, call: Call) -> None:
        """Send a call; `is_open` has to hold."""
        call.stream, call.bearer = self._next, self
        call.there, call.sent_bytes = self._there_each, 0
        self._calls[call.stream] = call
        self._next += 2
        block = self._prefix + call.head
        self._prefix = b""
        self._write(frames.head_frames(call.stream, block))
        self._send_body(call)
        if self._next > _LAST_STREAM:
            self._leave()

    def cancel(self, call: Call) -> None:
        """Break a call off that is on this connection."""
        self._refuse(call, StatusCode.CANCELLED, "not needed any more")

    def cut(self, call: Call) -> None:
        """Send no more of a request: one that ends in the middle of its message is none to who reads it."""
        if call.sent_bytes < len(call.body):
            self._stuck.pop(call, None)
            self._write(frames.frame(Kind.DATA, END_STREAM, call.stream))
        call.body, call.sent_bytes = b"", 0

    async def close(self) -> None:
        """End it, and every call on it."""
        if self._transport is not None:
            self._transport.abort()
        await self._gone.wait()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        stated = (
            (Setting.HEADER_TABLE_SIZE, 0),
            (Setting.ENABLE_PUSH, 0),
            (Setting.INITIAL_WINDOW_SIZE, ANSWER_WINDOW_BYTES),
            (Setting.MAX_HEADER_LIST_SIZE, FIELDS_MAX_BYTES),
        )
        more = frames.numbered(Kind.WINDOW_UPDATE, 0, ALL_WINDOW_BYTES - WINDOW_BYTES)
        self._write(PREFACE + frames.settings(stated) + more)
        self._owner.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Every call on it has ended."""
        self._transport, self._leaving = None, True
        self._owner.lost(self)
        self._end_all(str(exc or "it was closed"))
        self._gone.set()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        try:
            self._take_frames(data)
        except PeerError as error:
            self._fail(error)

    def pause_writing(self) -> None:
        """The other side reads too slowly: bodies wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has read."""
        self._paused, self._owed = False, 0
        self._send_stuck()

    # What the frames say.

    def _take_frames(self, data: bytes) -> None:
        for kind, flags, stream, payload in self._frames.of(data):
            if self._block is not None and kind != Kind.CONTINUATION:
                raise PeerError(Reason.PROTOCOL_ERROR, "header fields that were not continued")
            if take := self._take.get(kind):
                take(flags, stream, payload)

    def _call_of(self, stream: int) -> Call | None:
        """Whose frame it is; None of one that has ended. Raises PeerError if there never was one."""
        call = self._calls.get(stream)
        if call is None and (not stream % 2 or stream >= self._next):
            raise PeerError(Reason.PROTOCOL_ERROR, f"a frame of stream {stream}, which was never begun")
        return call

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        call, size = self._call_of(stream), len(payload)
        self._here -= size
        if self._here < ALL_WINDOW_BYTES // 2:
            self._write(frames.numbered(Kind.WINDOW_UPDATE, 0, ALL_WINDOW_BYTES - self._here))
            self._here = ALL_WINDOW_BYTES
        if call is None:
            return
        call.here -= size
        before, last = call.reply.response_bytes, bool(flags & END_STREAM)
        try:
            answer = call.reply.data(frames.content(Kind.DATA, flags, payload), last=last)
        except ReplyError as broken:
            self._refuse(call, broken.code, str(broken), last=last)
            return
        if not call.holds(call.reply.response_bytes - before):
            self._refuse(call, StatusCode.RESOURCE_EXHAUSTED, "there is no room for the answer", last=last)
        elif answer is not None:
            self._answered(call, answer)
        elif call.here < ANSWER_WINDOW_BYTES // 2:
            self._write(frames.numbered(Kind.WINDOW_UPDATE, stream, ANSWER_WINDOW_BYTES - call.here))
            call.here = ANSWER_WINDOW_BYTES

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        block = frames.content(Kind.HEADERS, flags, payload)
        if flags & END_HEADERS:
            self._fields(flags, stream, block)
        else:
            self._call_of(stream)
            self._block = flags, stream, bytearray(block)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[1] != stream:
            raise PeerError(Reason.PROTOCOL_ERROR, "a continuation of nothing")
        first, _, block = self._block
        block += payload
        ends = flags & END_HEADERS
        # Empty ones would cost their sender nothing.
        if len(block) > FIELDS_MAX_BYTES or not (payload or ends):
            raise PeerError(Reason.ENHANCE_YOUR_CALM, "header fields without an end")
        if ends:
            self._block = None
            self._fields(first, stream, bytes(block))

    def _fields(self, flags: int, stream: int, block: bytes) -> None:
        call = self._call_of(stream)
        if call is None:
            return
        last = bool(flags & END_STREAM)
        try:
            answer = call.reply.fields(read(block), last=last)
        except ReplyError as broken:
            self._refuse(call, broken.code, str(broken), last=last)
            return
        if answer is not None:
            self._answered(call, answer)

    def _reset(self, _: int, stream: int, payload: bytes) -> None:
        call, reason = self._call_of(stream), frames.number(payload)
        if call is None:
            return
        self._forget(call)
        words = f"the stream was reset: HTTP/2 error {reason}"
        if reason == Reason.REFUSED_STREAM:
            self._unseen(call, words)
        else:
            call.fail(code_of(reason), words)
        self._has_room()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise PeerError(Reason.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            return
        for name, value in frames.settings_of(payload):
            if name == Setting.MAX_CONCURRENT_STREAMS:
                self._most = value
            elif name == Setting.HEADER_TABLE_SIZE:
                self._prefix = EMPTY_TABLE
            elif name == Setting.INITIAL_WINDOW_SIZE:
                more, self._there_each = value - self._there_each, frames.widened(0, value)
                for call in self._calls.values():
                    call.there = frames.widened(call.there, more)
        self._owe(frames.frame(Kind.SETTINGS, ACK, 0))
        self._send_stuck()
        self._has_room()

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) != _PING_BYTES:
            raise PeerError(Reason.FRAME_SIZE_ERROR, "a ping that is none")
        if not flags & ACK:
            self._owe(frames.frame(Kind.PING, ACK, 0, payload))

    def _goaway(self, _: int, stream: int, payload: bytes) -> None:
        last = frames.number(payload, more=True) & _LAST_STREAM
        if stream:
            raise PeerError(Reason.PROTOCOL_ERROR, "an end of a stream, where it has to be of the connection")
        self._leave()
        for call in [call for number, call in self._calls.items() if number > last]:
            self._forget(call)
            self._unseen(call, "Envoy is leaving")
        self._has_room()

    def _more_room(self, _: int, stream: int, payload: bytes) -> None:
        more = frames.number(payload) & _LAST_STREAM
        if not stream:
            self._there = frames.widened(self._there, more)
        elif (call := self._call_of(stream)) is not None:
            call.there = frames.widened(call.there, more)
        self._send_stuck()

    def _push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise PeerError(Reason.PROTOCOL_ERROR, "a push, which was not allowed")

    # What becomes of calls.

    def _answered(self, call: Call, answer: Answer) -> None:
        if call.sent_bytes < len(call.body):
            # An answer to half a request: the rest is of no use (RFC 9113, 8.1).
            self._break_off(call, Reason.NO_ERROR)
        else:
            self._forget(call)
        call.end(answer)
        self._has_room()

    def _unseen(self, call: Call, words: str) -> None:
        """The other side says that it has not looked at a call: whoever answered a part of it cannot say so."""
        if call.again or not call.wanted or call.reply.has_begun:
            call.fail(StatusCode.UNAVAILABLE, words)
        else:
            call.again, call.bearer = True, None
            self._owner.refused(call)

    def _refuse(self, call: Call, code: StatusCode, words: str, *, last: bool = False) -> None:
        """What comes of a call is not wanted. last: whether no more will come."""
        if last and call.sent_bytes == len(call.body):
            # Nothing is left to break off (RFC 9113, 5.1).
            self._forget(call)
        else:
            self._break_off(call, Reason.CANCEL)
        call.fail(code, words)
        self._has_room()

    def _break_off(self, call: Call, reason: Reason) -> None:
        self._forget(call)
        self._write(frames.numbered(Kind.RST_STREAM, call.stream, reason))

    def _forget(self, call: Call) -> None:
        del self._calls[call.stream]
        if self._stuck:
            self._stuck.pop(call, None)

    def _has_room(self) -> None:
        if not self._leaving:
            self._owner.has_room(self)
        elif not self._calls and self._transport is not None:
            self._flush()
            self._transport.close()

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._owner.leaving(self)

    def _fail(self, error: PeerError) -> None:
        """Say why, and end it."""
        self._write(frames.frame(Kind.GOAWAY, 0, 0, bytes(4) + int(error.reason).to_bytes(4, "big")))
        self._flush()
        self._leave()
        if self._transport is not None:
            self._transport.abort()
        self._end_all(str(error))

    def _end_all(self, why: str) -> None:
        calls, self._calls = self._calls, {}
        self._stuck.clear()
        for call in calls.values():
            call.fail(StatusCode.UNAVAILABLE, f"the connection to Envoy ended: {why}")

    # What goes out.

    def _send_body(self, call: Call) -> None:
        """Send of a request what there is room for; the rest waits."""
        while self._send_piece(call):
            pass

    def _send_piece(self, call: Call) -> bool:
        """Send the next piece of a request, if there is room for it; whether there was, and there is more to send."""
        whole = len(call.body)
        size = min(whole - call.sent_bytes, FRAME_MAX_BYTES, call.there, self._there)
        if size <= 0 or self._paused:
            self._stuck[call] = None
            return False
        piece = call.body[call.sent_bytes : call.sent_bytes + size]
        call.sent_bytes += size
        call.there -= size
        self._there -= size
        ends = call.sent_bytes == whole
        self._write(frames.frame(Kind.DATA, END_STREAM if ends else 0, call.stream, piece))
        if ends and self._stuck:
            self._stuck.pop(call, None)
        return not ends

    def _send_stuck(self) -> None:
        """A piece of each in turn: what is let go is not for the one that has waited longest alone."""
        going = list(self._stuck)
        while going:
            going = [call for call in going if self._send_piece(call)]

    def _owe(self, answer: bytes) -> None:
        self._owed += self._paused
        if self._owed > OWED_MOST:
            raise PeerError(Reason.ENHANCE_YOUR_CALM, "asks, and does not read what it is told")
        self._write(answer)

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()
