"""Servers that misbehave below gRPC: one HTTP/2 connection a caller, answered a frame at a time, or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import GoAwayFrame

READ_BYTES = 65536
FRAME_BYTES = 16384
DRIP_S = 0.05
# Until the other side has read some more.
PAUSE_S = 0.005


@dataclass(slots=True)
class Call:
    """One call that a server took and has not answered."""

    path: str
    stream: int
    connection: h2.connection.H2Connection
    writer: asyncio.StreamWriter

    async def flush(self) -> None:
        """Send what there is to send."""
        self.writer.write(self.connection.data_to_send())
        await self.writer.drain()

    async def begin(self, *fields: tuple[str, str]) -> None:
        """Send the headers of an answer."""
        told = [(":status", "200"), ("content-type", "application/grpc"), *fields]
        self.connection.send_headers(self.stream, told)
        await self.flush()

    async def send(self, data: bytes, *, ends: bool = False) -> None:
        """Send data of the answer, as much as the other side takes now. ends: whether nothing follows."""
        for start in range(0, max(len(data), 1), FRAME_BYTES):
            part = data[start : start + FRAME_BYTES]
            while self.connection.local_flow_control_window(self.stream) < len(part):  # noqa: ASYNC110 nothing tells us
                await asyncio.sleep(PAUSE_S)
            last = start + FRAME_BYTES >= len(data)
            self.connection.send_data(self.stream, part, end_stream=ends and last)
            await self.flush()

    async def trail(self, *fields: tuple[str, str | bytes]) -> None:
        """End the answer with these trailers."""
        self.connection.send_headers(self.stream, fields, end_stream=True)
        await self.flush()

    async def leave(self, *, last: int, error: int = 0) -> None:
        """Say that the connection takes no more calls than up to this stream."""
        # By h2, nothing could be said or heard after it.
        self.writer.write(GoAwayFrame(0, last_stream_id=last, error_code=error).serialize())
        await self.writer.drain()

    async def refuse(self, code: int) -> None:
        """End the call with a code and no answer."""
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(code))]
        self.connection.send_headers(self.stream, fields, end_stream=True)
        await self.flush()


Misbehave = Callable[[Call], Awaitable[None]]


async def drip(call: Call) -> None:
    """Announce an answer of a megabyte, and send a byte of it now and then."""
    await call.begin()
    for byte in b"\x00" + (1 << 20).to_bytes(4):
        call.connection.send_data(call.stream, bytes([byte]))
        await call.flush()
    while True:
        call.connection.send_data(call.stream, b"\x0a")
        await call.flush()
        await asyncio.sleep(DRIP_S)


async def reset(call: Call) -> None:
    """Reset the stream."""
    call.connection.reset_stream(call.stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
    await call.flush()


async def hang_up(call: Call) -> None:
    """Close the connection."""
    call.writer.transport.abort()


async def overstate(call: Call) -> None:
    """Announce an answer of 4 GiB."""
    await call.begin()
    call.connection.send_data(call.stream, b"\x00\xff\xff\xff\xff" + bytes(100))
    await call.flush()


@asynccontextmanager
async def misbehaving(path: str, misbehave: Misbehave) -> AsyncGenerator[None]:
    """A server on a Unix socket that has no health, and does this with every other call."""

    async def answer(call: Call) -> None:
        if call.path.startswith("/grpc.health."):
            await call.refuse(12)
        else:
            await misbehave(call)

    async with _listening(path, lambda reader, writer: _converse(reader, writer, answer)):
        yield


@asynccontextmanager
async def babbling(path: str) -> AsyncGenerator[None]:
    """A server on a Unix socket that speaks something else."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(READ_BYTES):
            writer.write(b"220 mail.example.org ESMTP\r\n" * 10)
            await writer.drain()

    async with _listening(path, babble):
        yield


@asynccontextmanager
async def _listening(
    path: str, converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncGenerator[None]:
    open_: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_.add(task)
        try:
            await converse(reader, writer)
        except (OSError, asyncio.CancelledError, h2.exceptions.ProtocolError):
            # The gateway went away, or the server ends.
            return
        finally:
            open_.discard(task)
            writer.transport.abort()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        for task in list(open_):
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Misbehave) -> None:
    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    answering: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as calls:
        while data := await reader.read(READ_BYTES):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {str(key): str(value) for key, value in event.headers or ()}
                    assert event.stream_id is not None
                    call = Call(fields[":path"], event.stream_id, connection, writer)
                    answering.append(calls.create_task(_tolerate(answer(call))))
            writer.write(connection.data_to_send())
            await writer.drain()
        for task in answering:
            task.cancel()


async def _tolerate(answering: Awaitable[None]) -> None:
    try:
        await answering
    except (OSError, h2.exceptions.ProtocolError):
        # The caller gave the call up.
        return
