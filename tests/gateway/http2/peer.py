"""A server that does as it is told, frame by frame: right or wrong. Its frames are hyperframe's, its fields hpack's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.http2.call import Call
from gateway.http2.connection import PREFACE
from gateway.http2.fields import block_of, request_block
from gateway.http2.reply import Answer, Reply, framed
from gateway.http2.wire import Wire
from tests.eventually import WITHIN_S

F = TypeVar("F", bound=Frame)

HEAD = ((":status", "200"), ("content-type", "application/grpc"))
OK = (("grpc-status", "0"),)
LIMIT_BYTES = 4 << 20


def without_table(encoder: Encoder) -> Encoder:
    """What keeps no table of fields, as the client asks for."""
    encoder.header_table_size = 0
    return encoder


@dataclass(eq=False)
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    encoder: Encoder = field(default_factory=lambda: without_table(Encoder()))
    decoder: Decoder = field(default_factory=Decoder)

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames; bytes are sent as they are."""
        self.writer.write(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))

    async def frame(self) -> Frame:
        """The next frame that the client sends."""
        head = await self.reader.readexactly(9)
        made, size = Frame.parse_frame_header(memoryview(head))
        made.parse_body(memoryview(await self.reader.readexactly(size)))
        return made

    async def next(self, kind: type[F]) -> F:
        """The next frame of a kind; others are passed over."""
        async with asyncio.timeout(WITHIN_S):
            while not isinstance(found := await self.frame(), kind):
                pass
        return found

    async def ended(self) -> int:
        """The reason that the client gives, and then is gone."""
        reason = (await self.next(GoAwayFrame)).error_code
        async with asyncio.timeout(WITHIN_S):
            while await self.reader.read(1 << 16):
                pass
        return reason

    def head(self, stream: int, fields: tuple[tuple[str, str], ...] = HEAD, *flags: str) -> HeadersFrame:
        """Header fields; whole, unless flags say otherwise."""
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags or ("END_HEADERS",))

    def tail(self, stream: int, fields: tuple[tuple[str, str], ...] = OK) -> HeadersFrame:
        """Fields that end an answer."""
        return self.head(stream, fields, "END_HEADERS", "END_STREAM")

    def answer(self, stream: int, response: bytes = b"hello") -> list[Frame]:
        """A good answer."""
        return [self.head(stream), DataFrame(stream, framed(response)), self.tail(stream)]


@dataclass(eq=False)
class Asking:
    """A client, and the connections that it made, in their order."""

    wire: Wire
    peers: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue[Peer])

    async def peer(self, **settings: int) -> Peer:
        """The next connection, once the client has begun and been told of the settings."""
        async with asyncio.timeout(WITHIN_S):
            peer = await self.peers.get()
            assert await peer.reader.readexactly(len(PREFACE)) == PREFACE
        peer.send(SettingsFrame(settings={getattr(SettingsFrame, name): value for name, value in settings.items()}))
        return peer

    def ask(
        self, body: bytes = b"hi", *, path: str = "/a.v1.Tool/Get", holds: Callable[[int], bool] = lambda _: True
    ) -> tuple[Call, asyncio.Future[Answer]]:
        """A call, and how it ends."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        head = request_block(path) + block_of([("x-test", "yes")])
        call = Call(head, framed(body), Reply(LIMIT_BYTES), holds, answer.set_result)
        self.wire.start(call)
        return call, answer

    async def asked(self, body: bytes = b"hi") -> tuple[Peer, int, asyncio.Future[Answer]]:
        """A call that has come to the server: its connection, its stream, and how it ends."""
        _, answer = self.ask(body)
        peer = await self.peer()
        return peer, (await peer.next(HeadersFrame)).stream_id, answer


@asynccontextmanager
async def asking(folder: Path) -> AsyncGenerator[Asking]:
    """A client of a server that does as it is told."""
    made = Asking(Wire(folder / "peer.sock"))
    closing: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing.append(writer)
        made.peers.put_nowait(Peer(reader, writer))

    server = await asyncio.start_unix_server(connected, folder / "peer.sock")
    try:
        yield made
    finally:
        await made.wire.close()
        for writer in closing:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def end_of(answer: asyncio.Future[Answer]) -> Answer:
    """How a call ended, which it does soon."""
    async with asyncio.timeout(WITHIN_S):
        return await answer


__all__ = [
    "HEAD",
    "LIMIT_BYTES",
    "OK",
    "Asking",
    "Peer",
    "RstStreamFrame",
    "WindowUpdateFrame",
    "asking",
    "end_of",
    "without_table",
]
