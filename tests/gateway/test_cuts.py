"""Open calls that are cut: who is meant, what their callers are told, and whom nobody can ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any as Untyped

import grpc
import grpc.aio
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from gateway import cuts as gateway_cuts
from gateway.blocks.words import Target
from gateway.catalog import CatalogBoard, Endpoint, Tool
from gateway.cuts import AT_ONCE, MOST, Cut, Cuts
from llmesh.api.calls.v1 import calls_pb2 as calls_pb
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceStub
from llmesh.caller import ACTING_KEY, Caller, caller_to_metadata
from llmesh.status import error_from_rpc
from tests.envoy import backend_at, tool_of
from tests.eventually import eventually
from tests.gateway.blocks.world import block, caller, domain, method, tool
from tests.pki import Authority, Issued, gateway

ECHO, OTHER = "acme.testing.v1.Echo", "acme.support.v1.Tickets"
UNARY = f"{ECHO}/Unary"
HOST = "echo.tools.example"
SAM, ANN = Caller(issuer="corp", subject="sam"), Caller(issuer="corp", subject="ann")
OTHER_SAM = Caller(issuer="other", subject="sam")
BETWEEN = "acme.testing.v1.Between"
# OTHER asked BETWEEN, which asks ECHO.
FOR_SAM = Caller(issuer="corp", subject="sam", actor=BETWEEN)
ACTING = ((f"{ACTING_KEY}1", f"/{OTHER}/Ask"), (f"{ACTING_KEY}2", f"/{BETWEEN}/Ask"))


class Waiting(EchoServicer):
    """Answers nobody before it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        # Whether it goes on when it is cancelled, and how often it did.
        self.stubborn = False
        self.went_on = 0

    async def Unary(self, request: pb.UnaryRequest, context: object) -> pb.UnaryResponse:
        await self._wait()
        return pb.UnaryResponse()

    async def Bidi(self, request_iterator: object, context: object) -> AsyncGenerator[pb.BidiResponse]:
        yield pb.BidiResponse(text="begun")
        await self._wait()
        yield pb.BidiResponse(text="ended")

    async def _wait(self) -> None:
        self.begun.release()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
            self.went_on += 1


@dataclass(slots=True)
class Serving:
    """A tool by the SDK, whose calls wait, and one without it."""

    channel: grpc.aio.Channel
    waiting: Waiting
    board: CatalogBoard
    foreign: str

    @property
    def cuts(self) -> Cuts:
        """What cuts, however slow this machine is."""
        return Cuts(self.board, answer_within_s=60, all_within_s=60)

    async def begin(self, *callers: Caller) -> list[Untyped]:
        """A unary call and a stream of each caller's, once the tool is answering them."""
        begun: list[Untyped] = []
        echo = EchoStub(self.channel)
        for who in callers:
            metadata = (*caller_to_metadata(who), *(ACTING if who.actor else ()))
            begun += [echo.Unary(pb.UnaryRequest(), metadata=metadata), echo.Bidi(metadata=metadata)]
        for _ in begun:
            await asyncio.wait_for(self.waiting.begun.acquire(), 20)
        return begun

    async def were_cut(self, calls: Sequence[Untyped]) -> list[bool]:
        """Of each call, whether it was cut. All others are answered now."""
        self.waiting.go_on.set()
        codes = [await code_of(call) for call in calls]
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}
        return [code is grpc.StatusCode.PERMISSION_DENIED for code in codes]


async def code_of(call: Untyped) -> grpc.StatusCode:
    """How a call ended. A stream's end comes after all that was sent on it."""
    with suppress(grpc.aio.AioRpcError):
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    return await call.code()


@pytest.fixture
async def serving() -> AsyncGenerator[Serving]:
    with TemporaryDirectory(prefix="cut") as name:
        folder, waiting, board = Path(name), Waiting(), CatalogBoard()
        address = f"unix:{folder}/s/echo.sock"
        async with (
            llmesh.Server(waiting, address=address, drain_limit_s=0),
            backend_at(folder / "foreign.sock") as foreign,
            grpc.aio.insecure_channel(address) as channel,
        ):
            tools = [tool_of(ECHO, address, domain="testing"), tool_of(OTHER, foreign.address, domain="support")]
            await board.post({each.service: each for each in tools}, {})
            yield Serving(channel, waiting, board, foreign.address)


@pytest.mark.parametrize(
    ("target", "cut"),
    [
        pytest.param(tool(ECHO), [True] * 8, id="a tool: all of its calls"),
        pytest.param(tool(BETWEEN), [False] * 6 + [True] * 2, id="a tool: those that it makes"),
        pytest.param(tool(OTHER), [False] * 6 + [True] * 2, id="a tool: those that come of it, however far down"),
        pytest.param(domain("testing"), [True] * 8, id="a domain: all calls of its tools"),
        pytest.param(domain("support"), [False] * 6 + [True] * 2, id="a domain: those that its tools make"),
        pytest.param(method(UNARY), [True, False] * 4, id="a method: its own"),
        pytest.param(method(f"{OTHER}/Ask"), [False] * 6 + [True] * 2, id="a method: those that come of it"),
        pytest.param(caller("sam"), [True, True, False, False, False, False, True, True], id="a caller: theirs"),
        pytest.param(tool(f"{ECHO}X"), [False] * 8, id="another tool: none"),
        pytest.param(domain("test"), [False] * 8, id="another domain: none"),
    ],
)
async def test_a_cut_ends_the_calls_that_the_block_stops_and_no_others(
    serving: Serving, target: Target, cut: list[bool]
) -> None:
    calls = await serving.begin(SAM, ANN, OTHER_SAM, FOR_SAM)

    made = await serving.cuts.cut(block(target, "it leaks"))

    assert made.ended == sum(cut)
    assert await serving.were_cut(calls) == cut


async def test_a_call_whose_request_is_yet_to_come_is_cut_and_reaches_no_servicer(serving: Serving) -> None:
    send = asyncio.Event()

    async def request() -> AsyncGenerator[pb.UnaryRequest]:
        await send.wait()
        yield pb.UnaryRequest()

    # As it comes by Envoy, which passes the headers on before there is a message.
    late = serving.channel.stream_unary(
        f"/{UNARY}",
        request_serializer=pb.UnaryRequest.SerializeToString,
        response_deserializer=pb.UnaryResponse.FromString,
    )
    call = late(request(), metadata=caller_to_metadata(SAM))
    for block_of, ended in ((caller("ann"), 0), (caller("sam"), 1), (caller("sam"), 0)):

        async def cut(block_of: Target = block_of, ended: int = ended) -> None:
            assert (await serving.cuts.cut(block(block_of))).ended == ended

        await eventually(cut)
    send.set()

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error_from_rpc(error.value).reason == "BLOCKED"
    assert serving.waiting.begun.locked()


async def test_callers_whose_calls_are_cut_read_why(serving: Serving) -> None:
    unary, stream = await serving.begin(SAM)

    await serving.cuts.cut(block(tool(ECHO), "it leaks", until_us=4102444800_000_000))

    for call in (unary, stream):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call if call is unary else [each async for each in call]
        told = error_from_rpc(error.value)
        assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, "BLOCKED")
        assert told.message == f"the tool `{ECHO}` is blocked until 2100-01-01T00:00:00Z: it leaks"
        assert told.metadata == {"block": "b1", "reason": "it leaks", "until": "2100-01-01T00:00:00Z"}


async def test_whoever_cannot_be_asked_is_told_of_where_it_matters(serving: Serving) -> None:
    deaf = frozenset({serving.foreign})
    assert (await serving.cuts.cut(block(tool(OTHER)))).deaf == deaf
    assert (await serving.cuts.cut(block(domain("support")))).deaf == deaf
    assert (await serving.cuts.cut(block(method(f"{OTHER}/Get")))).deaf == deaf
    assert (await serving.cuts.cut(block(caller("sam")))).deaf == deaf
    assert await serving.cuts.cut(block(tool(ECHO))) == Cut()


async def test_calls_at_a_tool_that_has_left_the_mesh_are_said_to_go_on_perhaps(serving: Serving) -> None:
    calls = await serving.begin(SAM)
    await serving.board.post({}, {})

    for target in (tool(ECHO), method(UNARY)):
        assert await serving.cuts.cut(block(target)) == Cut(0, frozenset({ECHO}))
    assert await serving.were_cut(calls) == [False, False]


async def test_a_server_answers_calls_after_a_cut(serving: Serving) -> None:
    await serving.begin(SAM)
    assert (await serving.cuts.cut(block(tool(ECHO)))).ended == 2
    assert (await serving.cuts.cut(block(tool(ECHO)))).ended == 0
    assert await serving.were_cut(await serving.begin(SAM)) == [False, False]


@pytest.mark.parametrize(
    "answer",
    [b"\xff", b"\x08\xff\xff\xff\xff\x0f", b"", b"x" * 5000],
    ids=["no message", "more calls than there can be", "nothing", "too large"],
)
async def test_what_a_server_says_that_nobody_vouches_for_harms_nothing(answer: bytes) -> None:
    class Lying(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            async def lie(_: bytes, _context: object) -> bytes:
                return answer

            return grpc.unary_unary_rpc_method_handler(lie)  # pyright: ignore[reportArgumentType] - async is right here

    server, board = grpc.aio.server(), CatalogBoard()
    server.add_generic_rpc_handlers((Lying(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await board.post({OTHER: tool_of(OTHER, f"127.0.0.1:{port}")}, {})
    made = await Cuts(board).cut(block(tool(OTHER)))
    await server.stop(0)

    assert made.ended <= MOST
    assert made.deaf <= {f"127.0.0.1:{port}"}


async def test_no_tool_is_told_why_a_caller_is_blocked(serving: Serving) -> None:
    unary, _ = await serving.begin(SAM)

    await serving.cuts.cut(block(caller("sam"), "under investigation"))

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unary
    told = error_from_rpc(error.value)
    assert told.reason == "BLOCKED"
    assert told.message == "the caller `sam` of the issuer `corp` is blocked: call again to read why"
    assert told.metadata == {"block": "b1"}


async def test_a_servicer_that_will_not_be_cancelled_sends_nothing_more(serving: Serving) -> None:
    serving.waiting.stubborn = True
    unary, stream = await serving.begin(SAM)

    await serving.cuts.cut(block(tool(ECHO)))

    for call in (unary, stream):
        assert await asyncio.wait_for(code_of(call), 20) is grpc.StatusCode.PERMISSION_DENIED
    assert serving.waiting.went_on == 2


async def test_nobody_who_comes_through_the_mesh_ends_calls(serving: Serving) -> None:
    calls = await serving.begin(SAM)
    request = calls_pb.EndCallsRequest(message="be gone", reason="BLOCKED", method=UNARY)
    end_calls = CallServiceStub(serving.channel).EndCalls

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await end_calls(request, metadata=(("x-llmesh-call-id", "c-1"),))

    assert error_from_rpc(error.value).reason == "NOT_THE_GATEWAY"
    assert await serving.were_cut(calls) == [False, False]


async def test_servers_that_do_not_answer_hold_up_no_other(serving: Serving, tmp_path: Path) -> None:
    with silent(tmp_path, AT_ONCE - 1) as crowd:
        await serving.board.post({OTHER: crowd, ECHO: serving.board.current.tools[ECHO]}, {})
        calls = await serving.begin(FOR_SAM)

        cut = await Cuts(serving.board, answer_within_s=60, all_within_s=5).cut(block(tool(OTHER)))

    assert cut == Cut(2, frozenset(endpoint.address for endpoint in crowd.endpoints))
    assert await serving.were_cut(calls) == [True, True]


async def test_those_that_matter_most_are_asked_first(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_cuts, "AT_ONCE", 1)
    with silent(tmp_path, 20) as crowd:
        echo = serving.board.current.tools[ECHO]
        [ready] = echo.endpoints
        away = (*silent_endpoints(tmp_path, 5), ready)
        tools = {OTHER: crowd, ECHO: replace(echo, endpoints=away, ready=frozenset({ready}))}
        await serving.board.post(tools, {})
        calls = await serving.begin(SAM)

        cut = await Cuts(serving.board, answer_within_s=60, all_within_s=5).cut(block(tool(ECHO)))

    assert cut.ended == 2
    assert await serving.were_cut(calls) == [True, True]


def silent_endpoints(folder: Path, count: int) -> tuple[Endpoint, ...]:
    """So many addresses in a folder."""
    return tuple(Endpoint(f"unix:{folder}/{number}.sock", "test") for number in range(count))


@contextmanager
def silent(folder: Path, count: int) -> Generator[Tool]:
    """A tool with so many endpoints: the system takes connections to them, and nobody answers."""
    endpoints = silent_endpoints(folder, count)
    with ExitStack() as listening:
        for endpoint in endpoints:
            server = listening.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(endpoint.address.removeprefix("unix:"))
            server.listen()
        yield replace(tool_of(OTHER, ""), endpoints=endpoints, ready=frozenset(endpoints))


async def test_over_tls_the_gateway_alone_ends_calls(tmp_path: Path) -> None:
    authority, waiting, board = Authority(), Waiting(), CatalogBoard()
    certificate, key = authority.issue(HOST).write(tmp_path)
    tls = llmesh.Tls(certificate, key, authority.write(tmp_path))

    def as_whom(shown: Issued) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(authority.pem, shown.key, shown.certificate)

    of_gateway, of_tool = as_whom(gateway(authority)), as_whom(authority.issue("other.tools.example"))
    async with (
        llmesh.Server(waiting, address="127.0.0.1:0", tls=tls, drain_limit_s=0) as server,
        grpc.aio.secure_channel(
            server.address, of_gateway, options=(("grpc.ssl_target_name_override", HOST),)
        ) as channel,
    ):
        endpoint = Endpoint(server.address, "file", tls_name=HOST)
        echo = replace(tool_of(ECHO, ""), endpoints=(endpoint,), ready=frozenset({endpoint}))
        await board.post({ECHO: echo}, {})
        calls = await Serving(channel, waiting, board, "").begin(SAM)

        by_tool = await Cuts(board, credentials=lambda: of_tool, answer_within_s=60).cut(block(tool(ECHO)))
        by_gateway = await Cuts(board, credentials=lambda: of_gateway, answer_within_s=60).cut(block(tool(ECHO)))

        assert by_tool == Cut(0, frozenset({server.address}))
        assert by_gateway == Cut(2)
        assert [await code_of(call) for call in calls] == [grpc.StatusCode.PERMISSION_DENIED] * 2
