"""A call through the mesh is the call: nothing of it is lost, changed or held back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]
from grpc_status import rpc_status

from llmesh._client import open_channel
from tests.e2e.mesh import OWNER, Metadata, RunningMesh
from tests.e2e.raw import RawConnection, frame

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

UNARY = "/acme.testing.v1.Echo/Unary"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
# The contract's own deadline of Unary.
CAP_MS = 30_000
WAIT_S = 60.0
LARGE_BYTES = 16 * 1024 * 1024 - 1024

# A client that dies in the middle of a call: address, token, mark.
DOOMED = """
import asyncio, sys
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
import llmesh

async def main():
    orders = pb.Orders(mark=sys.argv[3])
    orders.delay.FromSeconds(25)
    async with llmesh.Mesh(sys.argv[1], sys.argv[2]) as mesh:
        await EchoStub(mesh.channel).Unary(pb.UnaryRequest(orders=orders))

asyncio.run(main())
"""


@pytest.fixture
async def echo(mesh: RunningMesh) -> AsyncIterator[EchoAsyncStub]:
    async with open_channel(mesh.address) as channel:
        yield EchoStub(channel)


@pytest.fixture
def owner(mesh: RunningMesh) -> Metadata:
    return mesh.bearer(OWNER)


async def test_repeated_and_binary_metadata_pass_both_ways_in_order(echo: EchoAsyncStub, owner: Metadata) -> None:
    every_byte = bytes(range(256))
    own = ((INITIAL, "one"), (INITIAL, "two"), (TRAILING, every_byte), (TRAILING, b""), (TRAILING, b"\x00,"))
    call = echo.Unary(pb.UnaryRequest(), metadata=(*owner, *own))
    await call
    # Where a header is repeated, HTTP allows its values to be joined by commas.
    initial = [
        part.strip() for key, value in await call.initial_metadata() if key == INITIAL for part in str(value).split(",")
    ]
    trailing = [value for key, value in await call.trailing_metadata() if key == TRAILING]
    assert initial == ["one", "two"]
    assert trailing == [every_byte, b"", b"\x00,"]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_code_arrives_with_its_details(
    echo: EchoAsyncStub, owner: Metadata, code: grpc.StatusCode
) -> None:
    detail = Any()
    detail.Pack(error_details_pb2.RequestInfo(request_id="r-1"))
    number = int(code.value[0])
    call = echo.Unary(
        pb.UnaryRequest(orders=pb.Orders(status=pb.Status(code=number, message="as ordered ☺", details=[detail]))),
        metadata=owner,
    )
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    # The stubs leave it untyped.
    status = await rpc_status.aio.from_call(call)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    assert status is not None
    assert (status.code, status.message) == (number, "as ordered ☺")
    assert [*status.details] == [detail]  # pyright: ignore[reportUnknownMemberType]


def test_gzip_passes_both_ways(mesh: RunningMesh, owner: Metadata) -> None:
    request = pb.UnaryRequest(text="zip", orders=pb.Orders(gzip=True, padding_bytes=100_000), padding=bytes(100_000))
    signed_in = [(key, str(value)) for key, value in owner]
    with RawConnection(mesh.port) as connection:
        body = frame(request.SerializeToString(), compress=True)
        zipped = (("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity,gzip"))
        answer = connection.call(UNARY, *signed_in, *zipped, body=body)
    assert answer.get("grpc-status") == "0"
    assert answer.get("grpc-encoding") == "gzip"
    assert answer.compressed
    assert len(answer.data) < 10_000
    assert pb.UnaryResponse.FromString(answer.message).text == "zip"


async def test_16_mib_pass_both_ways(echo: EchoAsyncStub, owner: Metadata) -> None:
    request = pb.UnaryRequest(padding=bytes(LARGE_BYTES), orders=pb.Orders(padding_bytes=LARGE_BYTES))
    assert len((await echo.Unary(request, metadata=owner)).padding) == LARGE_BYTES


@pytest.mark.parametrize(
    ("timeout_s", "most_ms"),
    [(20.0, 20_000), (100.0, CAP_MS), (None, CAP_MS)],
    ids=["the caller's own", "the contract's where that is shorter", "the contract's where the caller has none"],
)
async def test_tool_sees_the_deadline(
    echo: EchoAsyncStub, owner: Metadata, timeout_s: float | None, most_ms: int
) -> None:
    answer = await echo.Unary(pb.UnaryRequest(), timeout=timeout_s, metadata=owner)
    assert most_ms - 10_000 < answer.remaining_ms <= most_ms


async def test_cancellation_reaches_the_tool(echo: EchoAsyncStub, owner: Metadata) -> None:
    events = echo.Follow(pb.FollowRequest(mark="cancelled"), timeout=WAIT_S, metadata=owner)
    orders = pb.Orders(delay=Duration(seconds=25), mark="cancelled")
    call = echo.Unary(pb.UnaryRequest(orders=orders), metadata=owner)
    assert await events.read() == pb.FollowResponse(event="began")
    call.cancel()
    assert await events.read() == pb.FollowResponse(event="cancelled")


async def test_callers_deadline_ends_the_tools_work(echo: EchoAsyncStub, owner: Metadata) -> None:
    events = echo.Follow(pb.FollowRequest(mark="late"), timeout=WAIT_S, metadata=owner)
    orders = pb.Orders(delay=Duration(seconds=25), mark="late")
    call = echo.Unary(pb.UnaryRequest(orders=orders), timeout=3, metadata=owner)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await events.read() == pb.FollowResponse(event="began")
    assert await events.read() == pb.FollowResponse(event="cancelled")


async def test_death_of_the_client_reaches_the_tool(mesh: RunningMesh, echo: EchoAsyncStub, owner: Metadata) -> None:
    events = echo.Follow(pb.FollowRequest(mark="doomed"), timeout=WAIT_S, metadata=owner)
    client = mesh.start(
        "doomed", (sys.executable, "-c", DOOMED, mesh.address, mesh.token(OWNER), "doomed"),
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert await events.read() == pb.FollowResponse(event="began")
    await asyncio.to_thread(client.kill)
    assert await events.read() == pb.FollowResponse(event="cancelled")


async def test_unknown_fields_survive(echo: EchoAsyncStub, owner: Metadata) -> None:
    unknown = b"\xfa\x3f\x03new"  # field 1023, of bytes
    item = pb.Item.FromString(pb.Item(name="a").SerializeToString() + unknown)
    answer = await echo.Unary(pb.UnaryRequest(items=[item]), metadata=owner)
    assert answer.items[0].SerializeToString() == item.SerializeToString()
    assert unknown in answer.SerializeToString()


async def test_answers_of_a_stream_are_not_held_back(echo: EchoAsyncStub, owner: Metadata) -> None:
    call = echo.Bidi(timeout=WAIT_S, metadata=owner)
    for text in "abcde":
        await call.write(pb.BidiRequest(text=text))
        assert await call.read() == pb.BidiResponse(text=text)


async def test_200_calls_at_once_are_all_answered(echo: EchoAsyncStub, owner: Metadata) -> None:
    calls = [echo.Bidi(metadata=owner) for _ in range(200)]
    for number, call in enumerate(calls):
        await call.write(pb.BidiRequest(text=str(number)))
    # All are open until the last has had its answer.
    answers = await asyncio.gather(*(call.read() for call in calls))
    assert answers == [pb.BidiResponse(text=str(number)) for number in range(200)]
    for call in calls:
        await call.done_writing()
    assert {await call.code() for call in calls} == {grpc.StatusCode.OK}


async def test_a_slow_reader_stalls_nobody(mesh: RunningMesh, echo: EchoAsyncStub, owner: Metadata) -> None:
    many = pb.ServerStreamRequest(count=2000, orders=pb.Orders(padding_bytes=65536))
    slow = [echo.ServerStream(many, metadata=owner) for _ in range(3)]
    for call in slow:
        await call.read()
    async with open_channel(mesh.address) as channel:
        for other in (echo, EchoStub(channel)):
            for _ in range(20):
                await other.Unary(pb.UnaryRequest(padding=bytes(65536)), timeout=WAIT_S, metadata=owner)
    for call in slow:
        assert not call.done()
        call.cancel()
