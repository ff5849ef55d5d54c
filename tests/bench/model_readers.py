"""Who reads texts as they are written, for the time to their first tokens.

They look at bytes as they come, and parse no more than where a text begins and
ends: a whole client takes as much of the processor as the server that it asks,
and on two cores it would be a client that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast

from gateway.http2 import frames
from gateway.http2.connection import PREFACE
from gateway.http2.fields import block_of, request_block
from gateway.http2.frames import ACK, END_STREAM, Frames, Kind, Setting
from gateway.http2.reply import framed

Ask = Callable[[], Coroutine[None, None, float]]
"""Asks for one text and reads all of it: the seconds that its first token took. Many may ask at a time."""

TIMEOUT_S = 120.0
# What a server may send ahead: more than all that is asked for.
WINDOW_BYTES = 1 << 28
_EVENT, _LAST_EVENT = b"data: ", b"data: [DONE]\n\n\r\n0\r\n\r\n"

P = TypeVar("P", bound=asyncio.Protocol)


@asynccontextmanager
async def over_grpc(
    address: str, path: str, request: bytes, metadata: Sequence[tuple[str, str]]
) -> AsyncGenerator[Ask]:
    """By one connection to an address, "unix:/path" or "host:port"."""
    connection = await _connected(address, _Http2)
    head, body = request_block(path) + block_of(metadata), framed(request)
    yield lambda: connection.ask(head, body)
    connection.close()


@asynccontextmanager
async def over_http(address: str, request: bytes) -> AsyncGenerator[Ask]:
    """By as many connections as texts are asked for at a time, each for many texts."""
    idle: list[_Http1] = []

    async def ask() -> float:
        connection = idle.pop() if idle else await _connected(address, _Http1)
        took_s = await connection.ask(request)
        idle.append(connection)
        return took_s

    yield ask
    for connection in idle:
        connection.close()


class _Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        """Not connected yet."""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Texts may be asked for."""
        self._transport = cast("asyncio.Transport", transport)

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


class _Text:
    """A text that is read. Of a server that never ends it, TimeoutError is raised."""

    def __init__(self) -> None:
        """It is asked for now."""
        self._asked_s = time.monotonic()
        self._first_s: float | None = None
        self._whole = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether a token of it has come."""
        return self._first_s is not None

    def begin(self) -> None:
        """A token has come."""
        if self._first_s is None:
            self._first_s = time.monotonic()

    def end(self) -> None:
        """No more will come."""
        self._whole.set()

    async def read(self) -> float:
        """How long its first token took, once it has ended."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._whole.wait()
        assert self._first_s is not None, "an answer without a text"
        return self._first_s - self._asked_s


class _Http2(_Reader):
    """A connection of HTTP/2."""

    def __init__(self) -> None:
        """Not connected yet."""
        super().__init__()
        self._frames = Frames()
        self._texts: dict[int, _Text] = {}
        self._next = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        stated = ((Setting.HEADER_TABLE_SIZE, 0), (Setting.INITIAL_WINDOW_SIZE, WINDOW_BYTES))
        self._write(PREFACE + frames.settings(stated) + frames.numbered(Kind.WINDOW_UPDATE, 0, WINDOW_BYTES))

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        for kind, flags, stream, payload in self._frames.of(data):
            if kind in (Kind.SETTINGS, Kind.PING) and not flags & ACK:
                self._write(frames.frame(Kind(kind), ACK, 0, payload if kind == Kind.PING else b""))
            if (text := self._texts.get(stream)) is None:
                continue
            if kind == Kind.DATA:
                text.begin()
            if kind == Kind.RST_STREAM or (flags & END_STREAM and kind in (Kind.DATA, Kind.HEADERS)):
                text.end()

    async def ask(self, head: bytes, body: bytes) -> float:
        """Ask for a text, and read it."""
        stream, self._next = self._next, self._next + 2
        text = self._texts[stream] = _Text()
        self._write(frames.head_frames(stream, head) + frames.frame(Kind.DATA, END_STREAM, stream, body))
        took_s = await text.read()
        del self._texts[stream]
        return took_s


class _Http1(_Reader):
    """A connection of HTTP/1.1, for one text at a time, which comes in server-sent events."""

    def __init__(self) -> None:
        """Not connected yet."""
        super().__init__()
        self._text: _Text | None = None
        self._read = b""

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._read += data
        if (text := self._text) is None:
            return
        if not text.has_begun and _EVENT in self._read:
            text.begin()
        if self._read.endswith(_LAST_EVENT):
            text.end()
        if text.has_begun:
            self._read = self._read[-len(_LAST_EVENT) :]

    async def ask(self, request: bytes) -> float:
        """Ask for a text, and read it."""
        self._text, self._read = _Text(), b""
        self._write(request)
        return await self._text.read()


async def _connected(address: str, kind: type[P]) -> P:
    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        return (await loop.create_unix_connection(kind, address.removeprefix("unix:")))[1]
    host, _, port = address.rpartition(":")
    return (await loop.create_connection(kind, host, int(port)))[1]
