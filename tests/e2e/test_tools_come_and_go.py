"""Tools come, go and die below running traffic; nobody else's calls fail."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from acme.writing.v1 import text_pb2
from acme.writing.v1.text_pb2_grpc import TextStub
from google.protobuf.duration_pb2 import Duration

from llmesh import Mesh, Unavailable
from llmesh._client import open_channel
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.e2e.admin import stat
from tests.e2e.mesh import ECHO, PLATFORM, RunningMesh, running_mesh
from tests.e2e.process import Process
from tests.e2e.traffic import Traffic
from tests.eventually import eventually

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub
    from acme.writing.v1.text_pb2_grpc import TextAsyncStub

TEXT = "acme.writing.v1.Text"
# Patience, and no promise.
CALLABLE_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


@pytest.fixture
async def channel(mesh: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(mesh.address) as opened:
        yield opened


@pytest.fixture
def echo(mesh: RunningMesh, channel: grpc.aio.Channel) -> Traffic:
    return echo_traffic(mesh, EchoStub(channel))


def echo_traffic(mesh: RunningMesh, echo: EchoAsyncStub) -> Traffic:
    metadata = mesh.bearer()
    # Some are in the tool's hands at any moment.
    orders = pb.Orders(delay=Duration(nanos=10_000_000))
    return Traffic(lambda: echo.Unary(pb.UnaryRequest(text="a", orders=orders), metadata=metadata))


async def measure(mesh: RunningMesh, text: TextAsyncStub) -> None:
    answer = await text.Measure(text_pb2.MeasureRequest(text="Two words."), metadata=mesh.bearer(), timeout=20)
    assert answer.statistics.word_count == 2


async def listed(mesh: RunningMesh, channel: grpc.aio.Channel, service: str) -> catalog.Tool | None:
    tools = (await CatalogServiceStub(channel).ListTools(catalog.ListToolsRequest(), metadata=mesh.bearer())).tools
    return next((tool for tool in tools if tool.service == service), None)


async def state_of(mesh: RunningMesh, channel: grpc.aio.Channel, process: Process) -> str:
    """The state of the process's endpoint."""
    stub = CatalogServiceStub(channel)
    found = await stub.ListEndpoints(catalog.ListEndpointsRequest(), metadata=mesh.bearer(PLATFORM))
    [endpoint] = [each for each in found.endpoints if each.address.endswith(f"-{process.pid}.sock")]
    return catalog.Endpoint.State.Name(endpoint.state)


async def serving_since(process: Process) -> float:
    """When the tool said that it serves, on the monotonic clock."""

    async def serving() -> float:
        assert '"serving"' in process.said()
        return time.monotonic()

    return await eventually(serving)


async def test_a_tool_that_starts_and_one_that_stops_fail_no_call(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic, record_property: Callable[[str, object], None]
) -> None:
    text = TextStub(channel)
    async with echo:
        tool = mesh.start_tool("writing/text")
        ready = await serving_since(tool)
        await eventually(lambda: measure(mesh, text), within_s=CALLABLE_WITHIN_S)
        record_property("callable_after_ms", round((time.monotonic() - ready) * 1000))
        found = await listed(mesh, channel, TEXT)
        assert found is not None
        assert found.ready_count == 1

        async with Traffic(lambda: measure(mesh, text)) as leaving:
            stopping = asyncio.create_task(asyncio.to_thread(tool.stop))
            assert await stopping == 0
            await leaving.more(20)
        assert await listed(mesh, channel, TEXT) is None
    # First it has no endpoint, then it is unknown; no call was broken off.
    refusals = ("UNAVAILABLE: no endpoint of", "UNIMPLEMENTED: no method")
    assert leaving.outcomes["OK"]
    assert leaving.outcomes["UNIMPLEMENTED"]
    assert [words for words in leaving.failures if not words.startswith(refusals)] == []
    assert echo.failures == {}


async def test_a_tool_that_dies_is_told_as_down_and_returns(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic
) -> None:
    text = TextStub(channel)
    async with echo:
        tool = mesh.start_tool("writing/text")
        await eventually(lambda: measure(mesh, text))
        await asyncio.to_thread(tool.kill)

        async def is_down() -> None:
            found = await listed(mesh, channel, TEXT)
            assert found is not None
            assert (found.endpoint_count, found.ready_count) == (1, 0)
            assert await state_of(mesh, channel, tool) == "STATE_DOWN"

        await eventually(is_down)
        async with Mesh(mesh.address, mesh.token()) as client:
            with pytest.raises(Unavailable) as refused:
                await TextStub(client.channel).Measure(text_pb2.MeasureRequest(text="a"))
        assert refused.value.retry_after_s == 1
        assert TEXT in refused.value.message
        assert str(mesh.home.path) not in refused.value.message

        again = mesh.start_tool("writing/text")
        await eventually(lambda: measure(mesh, text))
        await asyncio.to_thread(again.stop)
    assert echo.failures == {}


async def test_of_two_endpoints_one_may_die_and_no_read_fails(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic
) -> None:
    second = mesh.start_echo("echo2")
    await asyncio.to_thread(mesh.wait_ready, ECHO, count=2)
    async with echo:
        await echo.more(50)
        await asyncio.to_thread(second.kill)

        async def is_one() -> None:
            found = await listed(mesh, channel, ECHO)
            assert found is not None
            assert found.ready_count == 1

        await eventually(is_one)
        await echo.more(200)
    assert echo.failures == {}


async def test_of_two_endpoints_one_may_stop_and_no_call_fails(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic
) -> None:
    second = mesh.start_echo("echo3")
    await asyncio.to_thread(mesh.wait_ready, ECHO, count=2)
    stub, metadata = EchoStub(channel), mesh.bearer()

    async def talk() -> None:
        call = stub.Bidi(metadata=metadata)
        for _ in range(5):
            await call.write(pb.BidiRequest(text="a", orders=pb.Orders(delay=Duration(nanos=20_000_000))))
            assert await call.read() == pb.BidiResponse(text="a")
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async with echo, Traffic(talk) as streams:
        stopping = asyncio.create_task(asyncio.to_thread(second.stop))
        assert await stopping == 0
        await echo.more(50)
    assert echo.failures == {}
    assert streams.failures == {}


async def test_of_two_endpoints_one_that_hangs_gets_no_more_calls_until_it_answers_again(
    mesh: RunningMesh, echo: Traffic
) -> None:
    async def take_calls(count: int) -> None:
        assert stat(mesh.home.admin_socket, f"cluster.{ECHO}.membership_healthy") == count

    second = mesh.start_echo("echo4")
    try:
        await asyncio.to_thread(mesh.wait_ready, ECHO, count=2)
        await eventually(lambda: take_calls(2))
        async with echo:
            second.signal(signal.SIGSTOP)
            await eventually(lambda: take_calls(1))
            # What it had been sent is answered once it goes on.
            second.signal(signal.SIGCONT)
            await eventually(lambda: take_calls(2))
            await echo.more(50)
        assert echo.failures == {}
    finally:
        second.signal(signal.SIGCONT)
        await asyncio.to_thread(second.stop)
