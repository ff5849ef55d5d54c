"""Each process of a mesh dies, hangs, and loses its disk, its clock and its peers under traffic."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from typing import cast

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from rich.console import Console

from gateway.state import Store
from llmesh._client import open_channel
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.cli.running import look, print_status
from llmesh.supervisor.control import Restarted
from tests.e2e.admin import stat
from tests.e2e.mesh import PLATFORM
from tests.e2e.supervised import Supervised, supervised
from tests.eventually import eventually

KILL, HANG = signal.SIGKILL, signal.SIGSTOP
SIGNALS = pytest.mark.parametrize("number", [KILL, HANG], ids=["dies", "hangs"])
EVERY = ("reads", "writes", "new connections")
DAY_S = 86400
PROCESSES = ("gateway", "envoy", "one", "two")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Supervised]:
    with supervised("one", "two") as running:
        yield running


@pytest.fixture
async def channel(mesh: Supervised) -> AsyncIterator[grpc.aio.Channel]:
    """Each test begins with a mesh that is whole, and that the supervisor has heard of."""
    await mesh.ready(2)
    await eventually(lambda: all_answer(mesh), within_s=30)
    async with open_channel(mesh.mesh.address) as opened:
        yield opened


async def all_answer(mesh: Supervised) -> None:
    """What has just been started is given longer before it counts as hanging."""
    assert all(mesh.child(name).answers for name in PROCESSES)


async def endpoints(mesh: Supervised, channel: grpc.aio.Channel) -> list[catalog.Endpoint]:
    asked = CatalogServiceStub(channel).ListEndpoints(
        catalog.ListEndpointsRequest(), metadata=mesh.mesh.bearer(PLATFORM), timeout=5
    )
    return list((await asked).endpoints)


async def test_each_process_is_restarted_in_turn_and_no_call_fails(mesh: Supervised, channel: grpc.aio.Channel) -> None:
    before = {name: mesh.child(name).pid for name in PROCESSES}
    stream = EchoStub(channel).Bidi(metadata=mesh.mesh.bearer())
    async with mesh.traffic(*EVERY, "catalog") as load:
        await stream.write(pb.BidiRequest(text="a"))
        assert await mesh.restart("gateway") == [Restarted("gateway")]
        assert await stream.read() == pb.BidiResponse(text="a")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await mesh.restart("envoy", "one", "two") == [Restarted(name) for name in PROCESSES[1:]]
        await load.more()
    assert load.failures == {}
    assert all(mesh.child(name).pid != pid for name, pid in before.items())
    assert all((mesh.child(name).restarts, mesh.child(name).last_exit) == (0, "") for name in PROCESSES)


@SIGNALS
async def test_no_call_fails_for_a_gateway_that(
    mesh: Supervised, channel: grpc.aio.Channel, number: signal.Signals
) -> None:
    async with mesh.traffic(*EVERY) as load:
        pid = mesh.send("gateway", number)
        again = await mesh.replaced("gateway", pid)
        await eventually(lambda: mesh.tools(channel))
        await load.more()
    assert load.failures == {}
    assert again.last_exit == ("ended by SIGKILL" if number is KILL else "did not answer for 6 s: killed")


@SIGNALS
@pytest.mark.usefixtures("channel")
async def test_no_call_of_a_client_that_tries_again_fails_for_an_envoy_that(
    mesh: Supervised, number: signal.Signals
) -> None:
    async with mesh.traffic("patient") as load:
        await mesh.replaced("envoy", mesh.send("envoy", number))
        await load.more()
    assert load.failures == {}


@SIGNALS
@pytest.mark.usefixtures("channel")
async def test_no_read_fails_for_one_of_two_tools_that(mesh: Supervised, number: signal.Signals) -> None:
    async with mesh.traffic("reads", "new connections") as load:
        await mesh.replaced("one", mesh.send("one", number))
        await load.more()
    assert load.failures == {}


@pytest.mark.usefixtures("channel")
async def test_what_changes_while_envoy_and_the_gateway_have_no_connection_is_there_when_they_have(
    mesh: Supervised,
) -> None:
    async def connected(count: int) -> None:
        assert stat(mesh.mesh.home.admin_socket, "control_plane.connected_state") == count

    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.fault("cut"):
            await eventually(lambda: connected(0))
            third = mesh.mesh.start_echo("three")
            await load.more()
        await mesh.ready(3)
        await eventually(lambda: connected(1))
        await asyncio.to_thread(third.stop)
        await load.more()
    assert load.failures == {}


@pytest.mark.usefixtures("channel")
async def test_a_full_disk_stops_no_call_and_no_change_and_spoils_no_file(mesh: Supervised) -> None:
    home = mesh.mesh.home
    living = {f"unix:{home.tool_socket(name, pid=mesh.child(name).pid)}" for name in ("one", "two")}

    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.full_disk("gateway", "envoy", "one"):
            third = mesh.mesh.start_echo("three")
            await mesh.ready(3)
            await load.more()
            assert f"-{third.pid}.sock" not in home.leases.read_text()
            # What was kept before is whole.
            assert Store(home.catalog).load()
            assert set(json.loads(home.leases.read_text()).values()) >= living

        assert "leases could not be kept" in (home.logs / "gateway.log").read_text()

        async def kept() -> None:
            assert f"-{fourth.pid}.sock" in home.leases.read_text()

        fourth = mesh.mesh.start_echo("four")
        await eventually(kept)
        await asyncio.to_thread(third.stop)
        await asyncio.to_thread(fourth.stop)
    assert load.failures == {}


@pytest.mark.usefixtures("channel")
async def test_a_disk_that_hangs_holds_up_no_call_and_no_change(mesh: Supervised) -> None:
    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.fault("hang"):
            third = mesh.mesh.start_echo("three")
            await mesh.ready(3)
            assert f"-{third.pid}.sock" not in mesh.mesh.home.leases.read_text()
            await asyncio.to_thread(third.stop)
            await mesh.ready(2)
            await load.more()
    assert load.failures == {}


@pytest.mark.parametrize("step_s", [DAY_S, -DAY_S], ids=["forward", "back"])
@pytest.mark.usefixtures("channel")
async def test_a_wall_clock_that_is_set_ends_no_lease(mesh: Supervised, step_s: int) -> None:
    log = mesh.mesh.home.logs / "gateway.log"
    before = log.read_text().count("lease ran out")
    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.fault("step", str(step_s)):
            # A change, so that the gateway looks at everything.
            third = mesh.mesh.start_echo("three")
            await mesh.ready(3)
            await asyncio.to_thread(third.stop)
            await load.more()
    assert load.failures == {}
    assert log.read_text().count("lease ran out") == before


async def test_a_mesh_file_that_loses_most_of_its_endpoints_is_reported_and_they_are_held(
    mesh: Supervised, channel: grpc.aio.Channel
) -> None:
    named = [{"address": f"127.0.0.1:{port}"} for port in range(1, 6)]

    async def known(*, held: bool) -> None:
        found = {each.address: each.held for each in await endpoints(mesh, channel) if each.source == "file"}
        assert found == {each["address"]: held for each in named}

    mesh.mesh.write_file(endpoints=named)
    await eventually(lambda: known(held=False))
    mesh.mesh.write_file()
    await eventually(lambda: known(held=True))
    shown = Console(file=StringIO(), width=240)
    print_status(shown, await asyncio.to_thread(look, mesh.mesh.home))
    assert cast("StringIO", shown.file).getvalue().count("held: most of what this source named vanished") == len(named)
    mesh.mesh.write_file(endpoints=named)
    await eventually(lambda: known(held=False))


async def test_the_mesh_ends_in_order_when_it_is_told_to(mesh: Supervised, channel: grpc.aio.Channel) -> None:
    # The last test: nothing is left of the mesh.
    stream = EchoStub(channel).Bidi(metadata=mesh.mesh.bearer())
    await stream.write(pb.BidiRequest(text="a"))
    assert await stream.read() == pb.BidiResponse(text="a")
    [boss] = [each for each in mesh.mesh.processes if each.name == "boss"]
    ending = asyncio.create_task(asyncio.to_thread(boss.stop))

    async def leaving() -> None:
        assert '"lease released"' in (mesh.mesh.home.logs / "one.log").read_text()
        assert '"lease released"' in (mesh.mesh.home.logs / "two.log").read_text()

    await eventually(leaving)
    await stream.write(pb.BidiRequest(text="b"))
    assert await stream.read() == pb.BidiResponse(text="b")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await ending == 0
    assert json.loads(mesh.mesh.home.leases.read_text()) == {}
