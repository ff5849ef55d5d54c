"""Where a server listens, what it refuses, its health and how it stops."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import protovalidate
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from buf.validate import validate_pb2
from llmesh import testing
from llmesh._services import compile_rules
from llmesh.home import HomeError

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ECHO_TOOL = Path(__file__).parent.parent / "tools" / "echo"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="server-") as name:
        yield Path(name)


async def test_the_socket_and_its_directory_are_closed_to_others(folder: Path) -> None:
    path = folder / "new" / "tool.sock"
    async with llmesh.Server(EchoServicer(), address=f"unix:{path}") as server:
        assert server.address == f"unix:{path}"
        assert server.services == ("acme.testing.v1.Echo",)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_a_directory_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(HomeError, match="others may enter"):
        await llmesh.Server(EchoServicer(), address=f"unix:{folder}/tool.sock").start()


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(folder: Path) -> None:
    path = folder / "tool.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with llmesh.Server(EchoServicer(), address=f"unix:{path}"):
        with pytest.raises(llmesh.ServeError, match="another process serves"):
            await llmesh.Server(EchoServicer(), address=f"unix:{path}").start()
        assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    path = folder / "tool.sock"
    path.write_text("precious")
    with pytest.raises(llmesh.ServeError, match="is no socket"):
        await llmesh.Server(EchoServicer(), address=f"unix:{path}").start()
    assert path.read_text() == "precious"


async def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    with pytest.raises(llmesh.ServeError, match="at most 103"):
        await llmesh.Server(EchoServicer(), address=f"unix:{folder}/{'a' * 100}").start()


def test_tcp_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(llmesh.ServeError, match="insecure_dev=True"):
        llmesh.Server(EchoServicer(), address="127.0.0.1:0")


async def test_tcp_without_protection_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    async with llmesh.Server(EchoServicer(), address="127.0.0.1:0", insecure_dev=True) as server:
        assert any("WITHOUT PROTECTION" in record.message for record in caplog.records)
        async with llmesh.Mesh(server.address) as mesh:
            call = EchoStub(mesh.channel).WhoAmI(pb.WhoAmIRequest(), metadata=(("x-llmesh-subject", "ada"),))
            assert (await call).subject == "ada"


def test_no_mesh_directory_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LLMESH_HOME", raising=False)
    with pytest.raises(HomeError, match="run `llmesh up`"):
        llmesh.Server(EchoServicer())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("servicers", "words"),
    [((), "at least one"), ((object(),), "generated"), ((EchoServicer(), EchoServicer()), "twice")],
    ids=["none", "no servicer", "twice"],
)
def test_what_cannot_be_served_is_told_at_once(servicers: tuple[object, ...], words: str) -> None:
    with pytest.raises(llmesh.ServeError, match=words):
        llmesh.Server(*servicers, address="unix:/nowhere/tool.sock")


class NotAsync(EchoServicer):
    """Has a method that isn't async."""

    def Erase(self, request: object, context: object) -> Any:
        return pb.EraseResponse()


def test_a_method_that_is_not_async_is_told_at_once() -> None:
    with pytest.raises(llmesh.ServeError, match=r"Echo/Erase` must be `async def`"):
        llmesh.Server(NotAsync(), address="unix:/nowhere/tool.sock")


def health(channel: grpc.aio.Channel) -> Any:
    """gRPC ships no types for its stub."""
    return cast("Any", health_pb2_grpc.HealthStub(cast("Any", channel)))


async def test_health_is_told_by_service() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = health(tool.channel)
        for service in ("", "acme.testing.v1.Echo"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        with pytest.raises(llmesh.NotFound):
            await stub.Check(health_pb2.HealthCheckRequest(service="no.Such"))


async def test_a_server_serves_while_any_of_its_parts_is_ready_and_health_tells_of_each(folder: Path) -> None:
    readiness = llmesh.Readiness(("large", "small"))
    server = llmesh.Server(EchoServicer(), address=f"unix:{folder}/tool.sock", readiness=readiness)
    async with asyncio.timeout(60), server, llmesh.Mesh(server.address) as mesh:
        stub = health(mesh.channel)

        async def told() -> list[health_pb2.HealthCheckResponse.ServingStatus]:
            names = ("", "acme.testing.v1.Echo", "large", "small")
            return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]

        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == NOT_SERVING
        readiness.tell("large", ready=True)
        assert (await watch.read()).status == SERVING
        assert await told() == [SERVING, SERVING, SERVING, NOT_SERVING]
        readiness.tell("small", ready=True)
        readiness.tell("large", ready=False)
        assert await told() == [SERVING, SERVING, NOT_SERVING, SERVING]
        readiness.tell("small", ready=False)
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(llmesh.NotFound):
            await stub.Check(health_pb2.HealthCheckRequest(service="medium"))


class Gate(EchoServicer):
    """Answers when the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def Unary(self, request: pb.UnaryRequest, context: object) -> pb.UnaryResponse:
        self.entered.set()
        await self.opened.wait()
        return pb.UnaryResponse(text=request.text)


async def test_a_drain_says_so_and_lets_calls_finish(folder: Path) -> None:
    gate = Gate()
    server = llmesh.Server(gate, address=f"unix:{folder}/tool.sock")
    await server.start()
    async with asyncio.timeout(60), llmesh.Mesh(server.address) as mesh:
        call = EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"))
        watch = health(mesh.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await gate.entered.wait()
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(server.stop())
            assert (await watch.read()).status == NOT_SERVING
            assert not stopping.done()
            gate.opened.set()
            assert (await call).text == "a"


async def test_calls_are_cut_at_the_drain_limit(folder: Path) -> None:
    gate = Gate()
    server = llmesh.Server(gate, address=f"unix:{folder}/tool.sock", drain_limit_s=0.1)
    await server.start()
    async with asyncio.timeout(60), llmesh.Mesh(server.address) as mesh:
        call = EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"))
        await gate.entered.wait()
        await server.stop()
        with pytest.raises(llmesh.Unavailable, match="the tool is stopping") as cut:
            await call
    assert (cut.value.reason, cut.value.retry_after_s) == ("CALL_CUT", None)


async def test_calls_cut_at_the_drain_limit_by_a_process_that_stalls_do_not_end_it(folder: Path) -> None:
    async def stop_with_a_call(number: int) -> None:
        gate = Gate()
        server = llmesh.Server(gate, address=f"unix:{folder}/{number}.sock", drain_limit_s=0.05)
        await server.start()
        async with llmesh.Mesh(server.address) as mesh:
            call = EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"))
            await gate.entered.wait()
            await server.stop()
            with pytest.raises(llmesh.MeshError):
                await call

    async def stall() -> None:
        chances = random.Random(1)  # noqa: S311 no secret
        while True:
            time.sleep(chances.uniform(0, 0.02))  # noqa: ASYNC251 the loop's stall is what is tried
            await asyncio.sleep(chances.uniform(0, 0.01))

    async with asyncio.timeout(60):
        stalling = asyncio.create_task(stall())
        for number in range(40):
            await stop_with_a_call(number)
        stalling.cancel()


@pytest.fixture
async def process(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A tool's process: `llmesh.serve(EchoServicer())` in a mesh directory without a gateway."""
    environment = {**os.environ, "LLMESH_HOME": str(folder / ".llmesh"), "LLMESH_NAME": "echo"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "echo_tool", cwd=ECHO_TOOL, env=environment, stderr=asyncio.subprocess.PIPE
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_line_serves_until_a_signal_and_exits_0(
    process: asyncio.subprocess.Process, folder: Path, number: signal.Signals
) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b'"serving"' not in await process.stderr.readline():
            pass
        path = folder / ".llmesh" / "run" / "tools" / f"echo-{process.pid}.sock"
        async with llmesh.Mesh(f"unix:{path}") as mesh:
            call = EchoStub(mesh.channel).Unary(_slow_request())
            await call.wait_for_connection()
            process.send_signal(number)
            assert (await call).text == "a"
        assert await process.wait() == 0
        assert not path.exists()


EARLY = """
import asyncio, contextlib, os, signal, sys
import echo_tool.service as echo
import llmesh

@contextlib.asynccontextmanager
async def beside():
    os.kill(os.getpid(), int(sys.argv[1]))
    yield
    print("left")

llmesh.serve(echo.EchoServicer(), beside=beside())
print("over")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_a_tool_starts_ends_it_as_any_other_does(folder: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "LLMESH_HOME": str(folder / ".llmesh")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", EARLY, str(int(number))),
        cwd=ECHO_TOOL,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        said, told = await process.communicate()
    assert (process.returncode, said) == (0, b"left\nover\n"), told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once_and_in_silence(
    process: asyncio.subprocess.Process, folder: Path, number: signal.Signals
) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b'"serving"' not in await process.stderr.readline():
            pass
        path = folder / ".llmesh" / "run" / "tools" / f"echo-{process.pid}.sock"
        async with llmesh.Mesh(f"unix:{path}") as mesh:
            call = EchoStub(mesh.channel).Unary(_slow_request(delay_ms=60_000))
            watch = health(mesh.channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            process.send_signal(number)
            assert (await watch.read()).status == NOT_SERVING
            process.send_signal(number)
            assert await process.wait() == -number
            with pytest.raises(llmesh.MeshError):
                await call
        assert b"Traceback" not in await process.stderr.read()


async def test_the_socket_goes_though_the_stop_is_cut_short(folder: Path) -> None:
    gate = Gate()
    server = llmesh.Server(gate, address=f"unix:{folder}/tool.sock")
    await server.start()
    async with asyncio.timeout(60), llmesh.Mesh(server.address) as mesh:
        call = EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"))
        await gate.entered.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await server.stop()
        assert not (folder / "tool.sock").exists()
        gate.opened.set()
        assert (await call).text == "a"


def _slow_request(*, delay_ms: int = 300) -> pb.UnaryRequest:
    request = pb.UnaryRequest(text="a")
    request.orders.delay.FromMilliseconds(delay_ms)
    return request


async def test_a_start_that_fails_exits_with_words(folder: Path) -> None:
    folder.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "echo_tool",
        cwd=ECHO_TOOL,
        env={**os.environ, "LLMESH_HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith("llmesh: others may enter")


async def test_a_client_gone_leaves_the_server_serving(folder: Path) -> None:
    gate = Gate()
    async with llmesh.Server(gate, address=f"unix:{folder}/tool.sock", drain_limit_s=0.1) as server:
        channel = grpc.aio.insecure_channel(server.address)
        call = EchoStub(channel).Unary(pb.UnaryRequest())
        await gate.entered.wait()
        await channel.close()
        assert call.cancelled()
        async with llmesh.Mesh(server.address) as mesh:
            await EchoStub(mesh.channel).Erase(pb.EraseRequest())


def test_rules_that_do_not_compile_are_told_at_the_start() -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="bad_rules.proto", package="bad.rules", syntax="proto3", dependency=["buf/validate/validate.proto"]
    )
    message = file.message_type.add(name="Request")
    message.options.Extensions[validate_pb2.message].cel.add(id="bad", expression="this.missing > 'a' +")
    service = file.service.add(name="Bad")
    service.method.add(name="Do", input_type=".bad.rules.Request", output_type=".bad.rules.Request")
    descriptor_pool.Default().Add(file)
    with pytest.raises(llmesh.ServeError, match=r"rules of `bad\.rules\.Request` do not compile"):
        compile_rules(["bad.rules.Bad"], protovalidate.Validator())
