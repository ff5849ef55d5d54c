"""Each process of a mesh dies, hangs, and loses its disk, its clock and its peers under traffic."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
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
from llmesh.supervisor.processes import marked
from llmesh.supervisor.supervise import MARK
from tests.e2e.admin import stat
from tests.e2e.mesh import PLATFORM
from tests.e2e.process import Process
from tests.e2e.supervised import Supervised, supervised
from tests.eventually import eventually

IMPATIENT_S = 10.0
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
    await whole(mesh)
    async with open_channel(mesh.mesh.address) as opened:
        yield opened


async def whole(mesh: Supervised) -> None:
    await mesh.ready(2)
    await eventually(lambda: all_answer(mesh), within_s=60)


async def all_answer(mesh: Supervised) -> None:
    """What has just been started is given longer before it counts as hanging."""
    assert all(mesh.child(name).answers for name in PROCESSES)


async def endpoints(mesh: Supervised, channel: grpc.aio.Channel) -> list[catalog.Endpoint]:
    asked = CatalogServiceStub(channel).ListEndpoints(
        catalog.ListEndpointsRequest(), metadata=mesh.mesh.bearer(PLATFORM), timeout=20
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


async def test_a_stream_goes_on_when_the_next_envoy_has_taken_over(mesh: Supervised, channel: grpc.aio.Channel) -> None:
    before = mesh.child("envoy").pid
    stream = EchoStub(channel).Bidi(metadata=mesh.mesh.bearer())
    await stream.write(pb.BidiRequest(text="a"))
    assert await stream.read() == pb.BidiResponse(text="a")
    restarting = asyncio.create_task(mesh.restart("envoy"))
    await mesh.replaced("envoy", before)
    await stream.write(pb.BidiRequest(text="b"))
    assert await stream.read() == pb.BidiResponse(text="b")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await restarting == [Restarted("envoy")]


def status(mesh: Supervised) -> str:
    """What `llmesh status` prints."""
    shown = Console(file=StringIO(), width=240)
    print_status(shown, look(mesh.mesh.home))
    return cast("StringIO", shown.file).getvalue()


async def says(mesh: Supervised, words: str) -> None:
    assert words in await asyncio.to_thread(status, mesh)


async def fails(mesh: Supervised, name: str, number: signal.Signals, *kinds: str) -> None:
    """A process fails under traffic of these kinds, and no call does."""
    async with mesh.traffic(*kinds) as load:
        again = await mesh.replaced(name, mesh.send(name, number))
        async with open_channel(mesh.mesh.address) as channel:
            await eventually(lambda: mesh.tools(channel))
        await load.more()
    assert load.failures == {}
    assert again.last_exit == (
        "ended by SIGKILL" if number is signal.SIGKILL else f"did not answer for {IMPATIENT_S:g} s: killed"
    )


FAILURES = pytest.mark.parametrize(
    ("name", "kinds"),
    # Where Envoy or one of two tools fails, of a client that tries again: the other
    # tool may miss its health checks for a moment on a machine that is too busy.
    [("gateway", EVERY), ("envoy", ("patient",)), ("one", ("patient",))],
    ids=["the gateway", "an Envoy", "one of two tools"],
)


@FAILURES
@pytest.mark.usefixtures("channel")
async def test_no_call_fails_when_a_process_dies(mesh: Supervised, name: str, kinds: tuple[str, ...]) -> None:
    await fails(mesh, name, signal.SIGKILL, *kinds)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Supervised]:
    """A mesh for what hangs: in the others nothing may be killed because the machine is slow."""
    with supervised("one", "two", patience_s=IMPATIENT_S) as running:
        yield running


@FAILURES
async def test_no_call_fails_when_a_process_hangs(impatient: Supervised, name: str, kinds: tuple[str, ...]) -> None:
    await whole(impatient)
    await fails(impatient, name, signal.SIGSTOP, *kinds)


@pytest.mark.usefixtures("channel")
async def test_an_envoy_whose_successor_dies_is_replaced_and_can_be_restarted_again(mesh: Supervised) -> None:
    before = mesh.child("envoy").pid
    async with mesh.traffic("patient") as load:
        # Without the gateway's answers it does not become ready.
        with mesh.fault("cut"):
            restarting = asyncio.create_task(mesh.restart("envoy"))
            os.kill(await successor_of(mesh, before), signal.SIGKILL)
            [restarted] = await restarting
        assert restarted.problem.startswith("envoy is not replaced: the new process ended by SIGKILL")
        again = await mesh.replaced("envoy", before)
        assert (again.restarts > 0, "successor" in again.last_exit) == (True, True)
        await load.more()
        await whole(mesh)
        assert await mesh.restart("envoy") == [Restarted("envoy")]
        await load.more()
    assert load.failures == {}


async def successor_of(mesh: Supervised, pid: int) -> int:
    """The Envoy that is to take over from the one with this process id, once it runs."""

    async def runs() -> int:
        pids = [each.pid for each in marked(f"{MARK}={mesh.mesh.home.path}") if each.pid != pid]
        found = [each for each in pids if Path(f"/proc/{each}/exe").resolve().name == "envoy"]
        assert len(found) == 1
        return found[0]

    return await eventually(runs)


@asynccontextmanager
async def echo(mesh: Supervised, name: str) -> AsyncGenerator[Process]:
    """Another echo, for as long as the block lasts."""
    process = mesh.mesh.start_echo(name)
    try:
        yield process
    finally:
        await asyncio.to_thread(process.stop)


@pytest.mark.usefixtures("channel")
async def test_what_changes_while_envoy_and_the_gateway_have_no_connection_is_there_when_they_have(
    mesh: Supervised,
) -> None:
    async def connected(count: int) -> None:
        assert stat(mesh.mesh.home.admin_socket, "control_plane.connected_state") == count

    async with mesh.traffic(*EVERY, "catalog") as load, AsyncExitStack() as stack:
        with mesh.fault("cut"):
            await eventually(lambda: connected(0))
            await eventually(lambda: says(mesh, "Envoy has no connection to the gateway: calls go on"))
            await stack.enter_async_context(echo(mesh, "three"))
            await load.more()
        await mesh.ready(3)
        await eventually(lambda: connected(1))
        await stack.aclose()
        await load.more()
    assert load.failures == {}


@pytest.mark.usefixtures("channel")
async def test_a_full_disk_stops_no_call_and_no_change_and_spoils_no_file(mesh: Supervised) -> None:
    home = mesh.mesh.home
    living = {f"unix:{home.tool_socket(name, pid=mesh.child(name).pid)}" for name in ("one", "two")}

    async with mesh.traffic(*EVERY, "catalog") as load, AsyncExitStack() as stack:
        with mesh.full_disk("gateway", "envoy", "one"):
            third = await stack.enter_async_context(echo(mesh, "three"))
            await mesh.ready(3)
            await load.more()
            assert f"-{third.pid}.sock" not in home.leases.read_text()
            # What was kept before is whole.
            assert Store(home.catalog).load()
            assert set(json.loads(home.leases.read_text()).values()) >= living
            await eventually(lambda: says(mesh, "the leases cannot be kept, calls go on"))

        async def kept() -> None:
            assert f"-{third.pid}.sock" in home.leases.read_text()
            assert "cannot be kept" not in await asyncio.to_thread(status, mesh)

        await eventually(kept)
    assert load.failures == {}


@pytest.mark.usefixtures("channel")
async def test_a_disk_that_hangs_holds_up_no_call_and_no_change(mesh: Supervised) -> None:
    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.fault("hang"):
            async with echo(mesh, "three") as third:
                await mesh.ready(3)
                assert f"-{third.pid}.sock" not in mesh.mesh.home.leases.read_text()
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
            async with echo(mesh, "three"):
                await mesh.ready(3)
            await load.more()
    assert load.failures == {}
    assert log.read_text().count("lease ran out") == before


async def told(log: Path, step_s: int) -> None:
    """The clock of whoever writes a log is off by so much."""
    at = datetime.fromisoformat(json.loads(log.read_text().splitlines()[-1])["time"])
    assert abs((at - datetime.now(UTC)).total_seconds() - step_s) < DAY_S / 2


@pytest.mark.parametrize("step_s", [DAY_S, -DAY_S], ids=["forward", "back"])
@pytest.mark.usefixtures("channel")
async def test_a_tools_wall_clock_that_is_set_fails_no_call(mesh: Supervised, step_s: int) -> None:
    async with mesh.traffic(*EVERY, "catalog") as load:
        with mesh.clock_set("one", step_s):
            await eventually(lambda: told(mesh.mesh.home.logs / "one.log", step_s))
            await load.more()
        await load.more()
    assert load.failures == {}


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
    shown = await asyncio.to_thread(status, mesh)
    assert shown.count("held: most of what this source named vanished") == len(named)
    mesh.mesh.write_file(endpoints=named)
    await eventually(lambda: known(held=False))


@pytest.fixture
def ending() -> Iterator[Supervised]:
    """A mesh that a test may end."""
    with supervised("one", "two") as running:
        yield running


async def test_the_mesh_ends_in_order_when_it_is_told_to(ending: Supervised) -> None:
    async with open_channel(ending.mesh.address) as channel:
        await ends_in_order(ending, channel)


async def ends_in_order(mesh: Supervised, channel: grpc.aio.Channel) -> None:
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
