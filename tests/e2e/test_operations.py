"""The operations port of a real mesh: what it tells, to whom, and who is away when it does."""

from __future__ import annotations

import asyncio
import http.client
import re
import signal
import socket
from collections.abc import Iterator

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

from gateway.listener import stats
from gateway.listener.operations import CONNECTIONS, Operations
from gateway.operations import metrics
from llmesh._client import open_channel
from llmesh.api.blocks.v1 import blocks_pb2 as blocks
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub
from llmesh.identity import DevCaller
from llmesh.mesh_file import LimitSettings
from llmesh.supervisor.state import ChildState, Condition, SupervisorState
from tests.e2e import admin
from tests.e2e.mesh import ECHO, RunningMesh, free_port, running_mesh
from tests.e2e.process import Process
from tests.envoy import mesh as one_envoy
from tests.eventually import eventually

ENVOY_ALONE = "envoy_server_live{} 1"
GATEWAY_TOO = "llmesh_tools 1.0"
NAME = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)", re.MULTILINE)
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh(operations=f"127.0.0.1:{free_port()}") as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


def port_of(mesh: RunningMesh) -> int:
    return int(str(mesh.settings["operations"]).rpartition(":")[2])


def get(mesh: RunningMesh, path: str) -> tuple[int, str]:
    """The status and the body of a page."""
    return get_from(port_of(mesh), path)


def get_from(port: int, path: str) -> tuple[int, str]:
    """The same of a port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def says(mesh: RunningMesh, path: str, *words: str, silent: str = "") -> None:
    try:
        status, body = await asyncio.to_thread(get, mesh, path)
    except OSError as err:
        # As any answer that is not the one expected.
        raise AssertionError(err) from err
    assert status == 200
    assert all(word in body for word in words), body
    assert not silent or silent not in body


def series(mesh: RunningMesh) -> list[str]:
    """The figures that the port tells, without their values."""
    _, body = get(mesh, "/metrics")
    return [line.rpartition(" ")[0] for line in body.splitlines() if not line.startswith("#")]


def gateway_of(mesh: RunningMesh) -> Process:
    [running] = [each for each in mesh.processes if each.name == "gateway" and each.alive]
    return running


async def test_it_needs_no_token_and_tells_of_envoy_and_the_gateway(mesh: RunningMesh) -> None:
    assert get(mesh, "/livez") == (200, "LIVE\n")
    assert get(mesh, "/readyz") == (200, "LIVE\n")
    await eventually(lambda: says(mesh, "/metrics", ENVOY_ALONE, GATEWAY_TOO, 'llmesh_endpoints{state="ready"} 1.0'))


def test_every_figure_it_tells_is_documented(mesh: RunningMesh) -> None:
    gateway = {name for name, _, _ in metrics.documented()}
    gateway |= {f"{name}_{part}" for name in gateway for part in ("count", "sum")}
    told = {match[1] for match in map(NAME.match, series(mesh)) if match}

    unknown = {name for name in told if {name, HISTOGRAM.sub("", name)}.isdisjoint(stats.exported())} - gateway
    assert unknown == set()


def test_a_tool_costs_a_few_series_and_no_caller_any(mesh: RunningMesh) -> None:
    before = series(mesh)
    of_echo = [each for each in before if ECHO in each]
    assert 2 <= len(of_echo) <= stats.SERIES_A_TOOL
    mesh.wait_ready(ECHO)

    assert not [each for each in series(mesh) if re.search("sock|Unary|ListTools|ada|pia", each)]


async def test_how_long_a_tool_took_is_told_of_it_alone(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        await EchoStub(channel).Unary(pb.UnaryRequest(text="a"), metadata=mesh.bearer())

    counted = f'envoy_cluster_upstream_rq_time_count{{envoy_cluster_name="{ECHO}"}} '
    await eventually(lambda: says(mesh, "/metrics", counted))
    # Envoy keeps times a second time, by where its callers are.
    assert not [each for each in series(mesh) if re.search(r"(in|ex)ternal", each)]


async def test_it_tells_how_often_each_process_was_started_again(mesh: RunningMesh) -> None:
    processes = ChildState("text", Condition.RUNNING), ChildState("tickets", Condition.BACKING_OFF, restarts=2)
    SupervisorState(pid=1, start_ticks=1, address="", mesh_file="", since=0, children=processes).write(mesh.home)
    try:
        await eventually(
            lambda: says(
                *(mesh, "/metrics"),
                *('llmesh_process_runs{process="text"} 1.0', 'llmesh_process_runs{process="tickets"} 0.0'),
                *('process_restarts_total{process="text"} 0.0', 'process_restarts_total{process="tickets"} 2.0'),
            )
        )
    finally:
        mesh.home.supervisor.unlink()
    await eventually(lambda: says(mesh, "/metrics", GATEWAY_TOO, silent="llmesh_process_runs{"))


# One exact request a page: whatever else is asked gets nothing of the admin socket.
REFUSED = [
    "GET / HTTP/1.1",
    "GET /stats HTTP/1.1",
    "GET /stats/prometheus HTTP/1.1",
    "GET /ready HTTP/1.1",
    "GET /config_dump HTTP/1.1",
    "GET /metrics/ HTTP/1.1",
    "GET /metrics/envoy HTTP/1.1",
    "GET /metrics? HTTP/1.1",
    "GET /metrics?filter=.* HTTP/1.1",
    "GET /metrics?text_readouts HTTP/1.1",
    "GET /metrics/../quitquitquit HTTP/1.1",
    "GET /metrics/%2e%2e/quitquitquit HTTP/1.1",
    "GET /readyz/../config_dump HTTP/1.1",
    "GET //metrics HTTP/1.1",
    "GET /METRICS HTTP/1.1",
    "GET /%6detrics HTTP/1.1",
    "GET /metrics;x HTTP/1.1",
    "GET /metrics%3fusedonly HTTP/1.1",
    "GET /metrics#/../stats HTTP/1.1",
    "GET http://admin/config_dump HTTP/1.1",
    "GET http://admin/metrics?x HTTP/1.1",
    "POST /metrics HTTP/1.1",
    "POST /quitquitquit HTTP/1.1",
    "POST /readyz HTTP/1.1",
    "HEAD /metrics HTTP/1.1",
    "PUT /livez HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT admin:80 HTTP/1.1",
    "GET /metrics HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
    "GET /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0",
    "GET /metrics HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0",
    "GET /metrics HTTP/1.1\r\nx-http-method-override: POST\r\ncontent-length: 0",
    "GET /config_dump HTTP/1.1\r\nx-envoy-original-path: /metrics",
    "GET /config_dump HTTP/1.1\r\nx-original-url: /metrics",
    "PRI * HTTP/2.0\r\n\r\nSM",
    "GET /metrics\x00 HTTP/1.1",
]


async def test_nothing_else_of_the_admin_socket_can_be_reached(mesh: RunningMesh) -> None:
    answers = await asyncio.gather(*(ask(mesh, text) for text in REFUSED))

    got = {text for text, answer in zip(REFUSED, answers, strict=True) if answer.startswith("HTTP/1.1 2")}
    assert got == set()
    assert not [answer for answer in answers if "envoy_server" in answer or "LIVE" in answer]
    assert get(mesh, "/readyz")[0] == 200


async def test_whoever_keeps_connections_open_is_bounded(mesh: RunningMesh) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", port_of(mesh)) for _ in range(2 * CONNECTIONS)]
    try:
        closed = [asyncio.ensure_future(reader.read()) for reader, _ in opened]

        async def the_rest_is_let_go() -> None:
            assert sum(each.done() for each in closed) >= CONNECTIONS

        await eventually(the_rest_is_let_go)
    finally:
        for _, writer in opened:
            writer.close()
    await eventually(lambda: says(mesh, "/readyz", "LIVE"))


async def test_callers_who_take_all_connections_there_may_be_make_nobody_think_it_unready() -> None:
    port = free_port()
    operations = Operations("127.0.0.1", port, "/no/gateway.sock")
    async with one_envoy(operations=operations, limits=LimitSettings(connections=1)) as running:
        await running.publish(running.tool("acme.support.v1.Tickets"))
        # The one is the channel that this waited for.
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        assert await reader.read() == b""
        writer.close()
        assert await asyncio.to_thread(get_from, port, "/readyz") == (200, "LIVE\n")


async def ask(mesh: RunningMesh, text: str) -> str:
    """All that comes back for a request before the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(mesh))
    writer.write(f"{text}\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer.decode(errors="replace")


async def test_a_body_that_never_ends_is_not_kept_for_anybody(mesh: RunningMesh) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(mesh))
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    async with asyncio.timeout(60):
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
    writer.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["is dead", "stands still"])
async def test_while_the_gateway_is_away_the_mesh_is_ready_and_envoy_tells_of_itself(
    mesh: RunningMesh, how: signal.Signals
) -> None:
    gateway = gateway_of(mesh)
    gateway.signal(how)
    try:
        await eventually(lambda: says(mesh, "/metrics", ENVOY_ALONE, silent="llmesh_"))
        assert get(mesh, "/readyz") == (200, "LIVE\n")
        assert get(mesh, "/livez") == (200, "LIVE\n")
    finally:
        if how == signal.SIGSTOP:
            gateway.signal(signal.SIGCONT)
        else:
            gateway.stop()
            mesh.start_gateway()
    await eventually(lambda: says(mesh, "/metrics", ENVOY_ALONE, GATEWAY_TOO))


async def test_it_is_not_ready_before_it_was_programmed_and_not_when_envoy_is_gone() -> None:
    with running_mesh(start=False, operations=f"127.0.0.1:{free_port()}") as mesh:
        envoy = mesh.start_envoy()
        await eventually(lambda: asyncio.to_thread(_waits_for_the_gateway, mesh))
        with pytest.raises(OSError, match="refused"):
            get(mesh, "/readyz")

        mesh.start_gateway()
        await eventually(lambda: _ready(mesh))
        with socket.create_connection(("127.0.0.1", mesh.port), timeout=60):
            pass
        envoy.kill()
        with pytest.raises(OSError, match="refused"):
            get(mesh, "/readyz")


def _waits_for_the_gateway(mesh: RunningMesh) -> None:
    try:
        assert admin.get(mesh.home.admin_socket, "/ready") == "PRE_INITIALIZING\n"
    except OSError as err:
        raise AssertionError(err) from err


async def _ready(mesh: RunningMesh) -> None:
    try:
        assert await asyncio.to_thread(get, mesh, "/readyz") == (200, "LIVE\n")
    except OSError as err:
        raise AssertionError(err) from err


async def test_it_tells_how_much_is_blocked(mesh: RunningMesh) -> None:
    target = blocks.Target(caller=blocks.Caller(issuer="dev", subject="eve"))
    ops = mesh.bearer(DevCaller("ops", roles=("editor",), domain="platform"))
    async with open_channel(mesh.address) as channel:
        stub = BlockServiceStub(channel)
        await stub.Block(blocks.BlockRequest(target=target, reason="a bot"), metadata=ops, timeout=30)
        told = ('llmesh_blocks{kind="caller"} 1.0', 'llmesh_blocks{kind="tool"} 0.0', "llmesh_blocks_not_kept 0.0")
        await eventually(lambda: says(mesh, "/metrics", *told))
        await stub.Unblock(blocks.UnblockRequest(target=target), metadata=ops, timeout=30)
        await eventually(lambda: says(mesh, "/metrics", 'llmesh_blocks{kind="caller"} 0.0'))
