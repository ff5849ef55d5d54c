"""gRPC's interoperability cases, as its public description gives them, through the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from llmesh._client import open_channel
from tests.e2e.mesh import OWNER, Metadata, RunningMesh

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

RESPONSE_SIZES = (31415, 9, 2653, 58979)
REQUEST_SIZES = (27182, 8, 1828, 45904)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


@pytest.fixture
async def echo(mesh: RunningMesh) -> AsyncIterator[EchoAsyncStub]:
    async with open_channel(mesh.address) as channel:
        yield EchoStub(channel)


@pytest.fixture
def owner(mesh: RunningMesh) -> Metadata:
    return mesh.bearer(OWNER)


async def test_empty_unary(echo: EchoAsyncStub, owner: Metadata) -> None:
    answer = await echo.Erase(pb.EraseRequest(), metadata=owner)
    assert answer == pb.EraseResponse()


async def test_large_unary(echo: EchoAsyncStub, owner: Metadata) -> None:
    request = pb.UnaryRequest(padding=bytes(271828), orders=pb.Orders(padding_bytes=314159))
    assert (await echo.Unary(request, metadata=owner)).padding == bytes(314159)


async def test_client_streaming(echo: EchoAsyncStub, owner: Metadata) -> None:
    requests = (pb.ClientStreamRequest(text="a", padding=bytes(size)) for size in REQUEST_SIZES)
    assert (await echo.ClientStream(requests, metadata=owner)).padding_bytes == 74922


async def test_server_streaming(echo: EchoAsyncStub, owner: Metadata) -> None:
    request = pb.ServerStreamRequest(padding_sizes=RESPONSE_SIZES)
    answers = [len(answer.padding) async for answer in echo.ServerStream(request, metadata=owner)]
    assert answers == list(RESPONSE_SIZES)


async def test_ping_pong(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Bidi(metadata=owner)
    for sent, wanted in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        await call.write(pb.BidiRequest(text="a", padding=bytes(sent), orders=pb.Orders(padding_bytes=wanted)))
        answer = await call.read()
        assert isinstance(answer, pb.BidiResponse)
        assert len(answer.padding) == wanted
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Bidi(metadata=owner)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.ClientStream(metadata=owner)
    await call.wait_for_connection()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Bidi(metadata=owner)
    await call.write(pb.BidiRequest(text="a", padding=bytes(27182), orders=pb.Orders(padding_bytes=31415)))
    await call.read()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_timeout_on_sleeping_server(echo: EchoAsyncStub, owner: Metadata) -> None:
    orders = pb.Orders(delay=Duration(seconds=20))
    call = echo.Bidi(timeout=0.2, metadata=owner)
    await call.write(pb.BidiRequest(text="a", padding=bytes(27182), orders=orders))
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_custom_metadata(echo: EchoAsyncStub, owner: Metadata) -> None:
    own = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab"))
    unary = echo.Unary(pb.UnaryRequest(padding=bytes(271828)), metadata=(*owner, *own))
    await unary
    duplex = echo.Bidi(metadata=(*owner, *own))
    await duplex.write(pb.BidiRequest(text="a"))
    await duplex.read()
    await duplex.done_writing()
    assert await duplex.read() is grpc.aio.EOF
    for call in (unary, duplex):
        assert (await call.initial_metadata())[INITIAL] == "test_initial_metadata_value"
        assert (await call.trailing_metadata())[TRAILING] == b"\xab\xab\xab"


async def test_status_code_and_message(echo: EchoAsyncStub, owner: Metadata) -> None:
    failure = pb.Orders(status=pb.Status(code=2, message="test status message"))
    unary = echo.Unary(pb.UnaryRequest(orders=failure), metadata=owner)
    duplex = echo.Bidi(metadata=owner)
    await duplex.write(pb.BidiRequest(text="a", orders=failure))
    for call in (unary, duplex):
        assert await call.code() is grpc.StatusCode.UNKNOWN
        assert await call.details() == "test status message"


async def test_special_status_message(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Unary(pb.UnaryRequest(orders=pb.Orders(status=pb.Status(code=2, message=SPECIAL))), metadata=owner)
    assert await call.code() is grpc.StatusCode.UNKNOWN
    assert await call.details() == SPECIAL


async def test_unimplemented_method(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Missing(pb.MissingRequest(), metadata=owner)
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", ["/acme.testing.v1.Echo/Nothing", "/acme.testing.v1.Nothing/Unary", "/nothing"])
async def test_unimplemented_service(mesh: RunningMesh, owner: Metadata, path: str) -> None:
    async with open_channel(mesh.address) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        call = method(b"", metadata=owner)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert path in (await call.details() or "")
