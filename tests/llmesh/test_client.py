"""What a client of the mesh sends, and what its failures look like."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from llmesh import _client, testing
from tests.hostile.wire import Call, misbehaving, reset

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

    Context = grpc.aio.ServicerContext[Any, Any]


class Seeing(EchoServicer):
    """Remembers the metadata of calls; answers with a call id as the mesh does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, str | bytes]] = []

    async def Unary(self, request: pb.UnaryRequest, context: Context) -> pb.UnaryResponse:
        self.seen.append({key: value for key, value in context.invocation_metadata() or ()})  # noqa: C416
        await context.send_initial_metadata((("x-llmesh-call-id", "call-7"),))
        return await super().Unary(request, context)


def test_every_public_name_is_there() -> None:
    assert {name: getattr(llmesh, name).__name__ for name in llmesh.__all__} == {name: name for name in llmesh.__all__}
    assert set(llmesh.__all__) <= set(dir(llmesh))
    with pytest.raises(AttributeError, match="module 'llmesh' has no attribute 'nope'"):
        getattr(llmesh, "no" + "pe")


def test_the_command_line_can_be_interrupted_before_grpc_is_loaded() -> None:
    code = "import sys, llmesh.cli; sys.exit('grpc' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_token_is_sent_with_each_call_and_asked_for_anew() -> None:
    servicer = Seeing()
    tokens = (f"token-{number}" for number in itertools.count())
    async with testing.run(servicer) as tool, llmesh.Mesh(tool.server.address, lambda: next(tokens)) as mesh:
        stub = EchoStub(mesh.channel)
        await stub.Unary(pb.UnaryRequest())
        await stub.Unary(pb.UnaryRequest(), metadata=(("traceparent", "00-1"),))
    assert [seen["authorization"] for seen in servicer.seen] == ["Bearer token-0", "Bearer token-1"]
    assert servicer.seen[1]["traceparent"] == "00-1"


@pytest.mark.parametrize("token", ["a\nb", "a b", "é"])
async def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="the token is none"):
        llmesh.Mesh("127.0.0.1:1", token)
    async with llmesh.Mesh("127.0.0.1:1", lambda: token) as mesh:
        with pytest.raises(ValueError, match="the token is none"):
            EchoStub(mesh.channel).Unary(pb.UnaryRequest())


async def test_a_failure_is_readable_and_keeps_grpcs_own_as_its_cause() -> None:
    orders = pb.Orders(status=pb.Status(code=9, message="open it first"))
    async with testing.run(Seeing()) as tool, llmesh.Mesh(tool.server.address, "token") as mesh:
        with pytest.raises(llmesh.FailedPrecondition) as failed:
            await EchoStub(mesh.channel).Unary(pb.UnaryRequest(orders=orders))
    assert str(failed.value) == "open it first (FAILED_PRECONDITION, call call-7)"
    assert failed.value.call_id == "call-7"
    assert isinstance(failed.value.__cause__, grpc.aio.AioRpcError)


async def test_what_cannot_be_read_of_one_answer_spoils_no_later_one_on_its_connection() -> None:
    """gRPC keeps an error of reading with the field in HPACK's table, to which later answers refer."""
    codes = iter(("seven", "7", "5"))

    async def answer(call: Call) -> None:
        await call.begin()
        await call.trail(("grpc-status", next(codes)))

    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        path = f"{folder}/tool.sock"
        async with misbehaving(path, answer), llmesh.Mesh(f"unix:{path}") as mesh:
            stub, found = EchoStub(mesh.channel), list[grpc.StatusCode]()
            for _ in range(3):
                with pytest.raises(llmesh.MeshError) as failed:
                    await stub.Unary(pb.UnaryRequest())
                found.append(failed.value.code)

    assert found[1:] == [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND]


class Clock:
    """What the client takes for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(_client, "monotonic", lambda: self.now_s)


@asynccontextmanager
async def resetting(told: asyncio.Semaphore) -> AsyncGenerator[EchoAsyncStub]:
    """Of a tool that begins to answer each call, and resets it once it is told to."""

    async def answer(call: Call) -> None:
        await call.begin(("x-llmesh-call-id", "call-7"))
        await told.acquire()
        await reset(call)

    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        path = f"{folder}/tool.sock"
        async with misbehaving(path, answer), llmesh.Mesh(f"unix:{path}") as mesh:
            yield EchoStub(mesh.channel)


@pytest.mark.parametrize(
    ("timeout_s", "kind"),
    [(60, llmesh.DeadlineExceeded), (61, llmesh.ToolFailed), (None, llmesh.ToolFailed)],
)
async def test_a_call_that_is_reset_as_its_time_is_up_is_late(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float | None, kind: type[llmesh.MeshError]
) -> None:
    clock, told = Clock(monkeypatch), asyncio.Semaphore(0)
    async with resetting(told) as stub:
        one = stub.Unary(pb.UnaryRequest(), timeout=timeout_s)
        many = stub.ServerStream(pb.ServerStreamRequest(), timeout=timeout_s)
        await many.initial_metadata()
        clock.now_s += 59.995
        told.release()
        told.release()
        with pytest.raises(kind):
            await one
        with pytest.raises(kind) as failed:
            await many.read()
    assert failed.value.call_id == "call-7"


async def test_a_stream_that_broke_in_time_is_not_late_however_late_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), asyncio.Semaphore(1)
    async with resetting(told) as stub:
        call = stub.ServerStream(pb.ServerStreamRequest(), timeout=60)
        await call.code()
        clock.now_s += 60
        with pytest.raises(llmesh.ToolFailed, match="RST_STREAM"):
            await call.read()


class PassingUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Does nothing, as that of whoever traces calls may."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


class PassingStream(grpc.aio.UnaryStreamClientInterceptor):
    """The same of streams: gRPC takes an interceptor for one shape."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


@pytest.mark.parametrize("timeout_s", [60, None])
async def test_calls_that_others_intercept_fail_with_the_same_kinds(timeout_s: float | None) -> None:
    orders = pb.Orders(status=pb.Status(code=8, message="enough"))
    async with testing.run(EchoServicer()) as tool:
        inner = grpc.aio.insecure_channel(tool.server.address, interceptors=(PassingUnary(), PassingStream()))
        async with _client.MeshChannel(inner, metadata=lambda _: ()) as channel:
            stub = EchoStub(channel)
            with pytest.raises(llmesh.OverQuota, match="enough"):
                await stub.Unary(pb.UnaryRequest(orders=orders), timeout=timeout_s)
            with pytest.raises(llmesh.OverQuota, match="enough"):
                async for _ in stub.ServerStream(pb.ServerStreamRequest(orders=orders), timeout=timeout_s):
                    pass


WARNINGS = {
    '[{"model":"m"},{"warning":"random weights"}]': "acme.testing.v1.Echo/Unary: random weights",
    '[{"warning":"a\\u001b[31m\\nb"}]': "acme.testing.v1.Echo/Unary: a[31m b",
    f'[{{"warning":"{"w" * 1000}"}}]': f"acme.testing.v1.Echo/Unary: {'w' * 300}",
    '[{"model":"warning"}]': "",
    '[{"warning":7}]': "",
    '["warning"]': "",
    '{"warning":"x"}': "",
    '[{"warning":': "",
    f'{"[" * 40_000}"warning"': "",
}


@pytest.mark.parametrize(("provenance", "logged"), WARNINGS.items(), ids=range(len(WARNINGS)))
async def test_what_an_answers_reader_must_be_told_is_in_the_callers_log(
    provenance: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(call: Call) -> None:
        await call.begin()
        await call.send(bytes(5))
        await call.trail(("grpc-status", "0"), ("x-llmesh-provenance", provenance))

    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        path = f"{folder}/tool.sock"
        async with misbehaving(path, answer), llmesh.Mesh(f"unix:{path}") as mesh:
            await EchoStub(mesh.channel).Unary(pb.UnaryRequest())

    assert [each.getMessage() for each in caplog.records if each.name == "llmesh.client"] == (
        [logged] if logged else []
    )


async def test_a_stream_warns_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    request = pb.ServerStreamRequest(text="a", count=2, orders=pb.Orders(cite={"warning": "random weights"}))
    async with testing.run(EchoServicer()) as tool:
        assert len([each async for each in EchoStub(tool.channel).ServerStream(request)]) == 2
    assert "acme.testing.v1.Echo/ServerStream: random weights" in caplog.messages


async def test_a_denial_shows_its_rule() -> None:
    denial = llmesh.Denied("only editors", rule="support/writes")
    assert str(denial) == "only editors (PERMISSION_DENIED, DENIED, rule support/writes)"


async def test_a_call_is_still_grpcs_own() -> None:
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        call = stub.Unary(pb.UnaryRequest(text="a"))
        assert (await call).text == "a"
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()
        slow = stub.Unary(pb.UnaryRequest(orders=slow_orders()))
        assert slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow


def slow_orders() -> pb.Orders:
    orders = pb.Orders()
    orders.delay.FromSeconds(30)
    return orders


async def test_a_stream_read_by_hand_fails_with_the_same_kinds() -> None:
    orders = pb.Orders(status=pb.Status(code=8, message="enough"))
    async with testing.run(EchoServicer()) as tool:
        stub = EchoStub(tool.channel)
        call = stub.ServerStream(pb.ServerStreamRequest(count=1, orders=orders))
        assert isinstance(await call.read(), pb.ServerStreamResponse)
        with pytest.raises(llmesh.OverQuota, match="enough"):
            await call.read()
        writing = stub.ClientStream()
        await writing.write(pb.ClientStreamRequest(text="a", orders=orders))
        with pytest.raises(llmesh.OverQuota, match="enough"):
            await writing


async def test_writing_to_a_call_that_is_over_says_why_it_is() -> None:
    async with testing.run(EchoServicer()) as tool:
        call = EchoStub(tool.channel).Bidi()
        await call.write(pb.BidiRequest())
        with pytest.raises(llmesh.InvalidCall):
            await call.read()
        with pytest.raises(llmesh.InvalidCall):
            await call.write(pb.BidiRequest(text="a"))


async def test_requests_may_come_from_an_asynchronous_iterator() -> None:
    async def requests() -> AsyncIterator[pb.BidiRequest]:
        for text in "abc":
            yield pb.BidiRequest(text=text)

    async with testing.run(EchoServicer()) as tool:
        assert [answer.text async for answer in EchoStub(tool.channel).Bidi(requests())] == ["a", "b", "c"]


async def test_a_mesh_that_is_not_there_is_unavailable() -> None:
    async with llmesh.Mesh("unix:/nowhere/mesh.sock", "token") as mesh:
        with pytest.raises(llmesh.Unavailable):
            await EchoStub(mesh.channel).Unary(pb.UnaryRequest())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8700",
        "127.9.9.9:1",
        "localhost:8700",
        "[::1]:8700",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "unix:/a",
    ],
)
def test_a_token_may_travel_on_this_machine(address: str) -> None:
    llmesh.Mesh(address, "token")


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:8700",
        "mesh.example.com:8700",
        "localhost.example.com:1",
        "127.0.0.1.nip.io:1",
        "[::]:1",
        "0.0.0.0:1",
        "dns://127.0.0.1/far:1",
    ],
)
def test_a_token_may_not_leave_this_machine_in_the_clear(address: str) -> None:
    with pytest.raises(ValueError, match="in the clear"):
        llmesh.Mesh(address, "token")
    llmesh.Mesh(address, "token", tls=True)
    llmesh.Mesh(f"https://{address}", "token")


def test_there_is_no_channel_before_the_mesh_is_entered() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = llmesh.Mesh().channel


async def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with (
        llmesh.Server(EchoServicer(), address="127.0.0.1:0", insecure_dev=True) as server,
        llmesh.Mesh(server.address, "token") as mesh,
    ):
        assert (await EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"))).text == "a"
