"""Open calls that are cut: who is meant, what their callers are told, and whom nobody can ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from typing import Any as Untyped

import grpc
import grpc.aio
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from gateway.blocks.words import Target
from gateway.catalog import CatalogBoard
from gateway.cuts import MOST, Cut, Cuts
from llmesh.caller import Caller, caller_to_metadata
from llmesh.status import error_from_rpc
from tests.envoy import backend_at, tool_of
from tests.gateway.blocks.world import block, caller, domain, method, tool

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

ECHO, OTHER = "acme.testing.v1.Echo", "acme.support.v1.Tickets"
UNARY = f"{ECHO}/Unary"
SAM, ANN = Caller(issuer="corp", subject="sam"), Caller(issuer="corp", subject="ann")
OTHER_SAM = Caller(issuer="other", subject="sam")
FOR_SAM = Caller(issuer="corp", subject="sam", actor=OTHER)


class Waiting(EchoServicer):
    """Answers nobody before it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()

    async def Unary(self, request: pb.UnaryRequest, context: object) -> pb.UnaryResponse:
        self.begun.release()
        await self.go_on.wait()
        return pb.UnaryResponse()

    async def Bidi(self, request_iterator: object, context: object) -> AsyncGenerator[pb.BidiResponse]:
        yield pb.BidiResponse(text="begun")
        self.begun.release()
        await self.go_on.wait()


@dataclass(slots=True)
class Serving:
    """A tool by the SDK, whose calls wait, and one without it."""

    echo: EchoAsyncStub
    waiting: Waiting
    cuts: Cuts
    foreign: str

    async def begin(self, *callers: Caller) -> list[Untyped]:
        """A unary call and a stream of each caller's, once the tool is answering them."""
        begun: list[Untyped] = []
        for who in callers:
            metadata = caller_to_metadata(who)
            begun += [self.echo.Unary(pb.UnaryRequest(), metadata=metadata), self.echo.Bidi(metadata=metadata)]
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
            yield Serving(EchoStub(channel), waiting, Cuts(board), foreign.address)


@pytest.mark.parametrize(
    ("target", "cut"),
    [
        pytest.param(tool(ECHO), [True] * 8, id="a tool: all of its calls"),
        pytest.param(tool(OTHER), [False] * 6 + [True] * 2, id="a tool: those that it makes"),
        pytest.param(domain("testing"), [True] * 8, id="a domain: all calls of its tools"),
        pytest.param(domain("support"), [False] * 6 + [True] * 2, id="a domain: those that its tools make"),
        pytest.param(method(UNARY), [True, False] * 4, id="a method: its own"),
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


async def test_callers_whose_calls_are_cut_read_why(serving: Serving) -> None:
    unary, stream = await serving.begin(SAM)

    await serving.cuts.cut(block(tool(ECHO), "it leaks", until_s=4102444800))

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
