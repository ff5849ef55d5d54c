"""The gateway dies and returns below running traffic; calls never notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

from llmesh._client import open_channel
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.e2e.admin import stat, taken_up
from tests.e2e.mesh import ECHO, PLATFORM, RunningMesh, running_mesh
from tests.e2e.process import Process
from tests.e2e.traffic import Traffic
from tests.eventually import eventually

# A gateway takes two seconds to start, and many more beside other tests.
BACK_WITHIN_S = 180.0


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
    stub, metadata = EchoStub(channel), mesh.bearer()
    return Traffic(lambda: stub.Unary(pb.UnaryRequest(text="a"), metadata=metadata))


def gateway_of(mesh: RunningMesh) -> Process:
    [running] = [each for each in mesh.processes if each.name == "gateway" and each.alive]
    return running


async def assert_gateway_answers(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    """It answers, programs Envoy, and has seen the tool with its own eyes."""
    stub = CatalogServiceStub(channel)
    found = await stub.ListEndpoints(catalog.ListEndpointsRequest(), metadata=mesh.bearer(PLATFORM), timeout=10)
    assert [each.state for each in found.endpoints if ECHO in each.services] == [catalog.Endpoint.STATE_READY]
    assert stat(mesh.home.admin_socket, "control_plane.connected_state") == 1


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_gateway_that_returns_takes_over_and_sends_envoy_nothing_new(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic, how: str
) -> None:
    before = await asyncio.to_thread(taken_up, mesh.home.admin_socket)
    async with echo:
        await asyncio.to_thread(gateway_of(mesh).kill if how == "kill" else gateway_of(mesh).stop)
        await echo.more(200)
        mesh.start_gateway()
        await eventually(lambda: assert_gateway_answers(mesh, channel), within_s=BACK_WITHIN_S)
        await echo.more(200)
    assert echo.failures == {}
    assert await asyncio.to_thread(taken_up, mesh.home.admin_socket) == before


async def test_a_stream_outlives_the_gateway(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    call = EchoStub(channel).Bidi(metadata=mesh.bearer())
    for text in "ab":
        await call.write(pb.BidiRequest(text=text))
        assert await call.read() == pb.BidiResponse(text=text)
        await asyncio.to_thread(gateway_of(mesh).kill)
        mesh.start_gateway()
        await eventually(lambda: assert_gateway_answers(mesh, channel), within_s=BACK_WITHIN_S)
    await call.write(pb.BidiRequest(text="c"))
    assert await call.read() == pb.BidiResponse(text="c")
    call.cancel()


async def test_a_tool_that_died_while_the_gateway_was_away_is_told_as_down(
    mesh: RunningMesh, channel: grpc.aio.Channel, echo: Traffic
) -> None:
    second = mesh.start_echo("echo2")
    await asyncio.to_thread(mesh.wait_ready, ECHO, count=2)
    stub = CatalogServiceStub(channel)

    async def is_down() -> None:
        found = await stub.ListEndpoints(catalog.ListEndpointsRequest(), metadata=mesh.bearer(PLATFORM), timeout=10)
        states = {each.address.rpartition("-")[2]: each.state for each in found.endpoints}
        assert states.get(f"{second.pid}.sock") in (None, catalog.Endpoint.STATE_DOWN)

    async with echo:
        await asyncio.to_thread(gateway_of(mesh).kill)
        await asyncio.to_thread(second.kill)
        await echo.more(100)
        mesh.start_gateway()
        await eventually(is_down, within_s=BACK_WITHIN_S)
        await echo.more(100)
    assert echo.failures == {}
