"""What a tool calls in its own right: when it may, where its token goes, and who may say who it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.herald import HeraldServicer
from echo_tool.service import EchoServicer

import llmesh
from llmesh import testing
from llmesh.api.identity.v1 import identity_pb2
from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from llmesh.caller import CALL_ID_KEY
from tests.eventually import eventually

if TYPE_CHECKING:
    from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub

ECHO, HERALD = "acme.testing.v1.Echo", "acme.testing.v1.Herald"
TOKEN = "head.payload.signature"  # noqa: S105 no token of anybody's
HELLO = pb.UnaryRequest(text="hello")


def identity(mesh: str, *, service: str = HERALD, lasts_s: float = 60.0) -> identity_pb2.TakeIdentityRequest:
    """Who a tool is, as the gateway says it."""
    told = identity_pb2.TakeIdentityRequest(service=service, token=TOKEN, mesh=mesh)
    told.lasts.FromNanoseconds(round(lasts_s * 1e9))
    return told


@asynccontextmanager
async def nobody(own: llmesh.OwnMesh) -> AsyncGenerator[IdentityServiceAsyncStub]:
    """A tool that no gateway has told who it is; by what it is told."""
    async with testing.run(HeraldServicer(), own_mesh=own) as tool:
        yield IdentityServiceStub(tool.raw_channel)


async def test_a_tool_calls_in_its_own_right_once_it_is_told_who_it_is() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(EchoServicer()) as echo, nobody(own) as gateway:
        waiting = asyncio.create_task(own.wait(timeout_s=60))
        await gateway.TakeIdentity(identity(echo.server.address))
        await waiting

        assert (await EchoStub(own.channel).Unary(HELLO, timeout=30)).text == "hello"


async def test_stand_ins_answer_in_a_test_of_the_tool_alone() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(HeraldServicer(), own_mesh=own, mesh=(EchoServicer(),)):
        await own.wait(timeout_s=60)

        assert (await EchoStub(own.channel).Unary(HELLO, timeout=30)).text == "hello"


async def test_who_has_no_identity_is_told_so_when_the_time_is_over() -> None:
    own = llmesh.OwnMesh()
    async with nobody(own):
        with pytest.raises(llmesh.Unavailable, match=f"no gateway says who `{HERALD}` is") as waited:
            await own.wait(timeout_s=0.01)
        with pytest.raises(llmesh.Unavailable) as called:
            _ = own.channel

    assert waited.value.reason == called.value.reason == "NO_IDENTITY"


async def test_an_identity_ends_when_no_gateway_renews_it() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(EchoServicer()) as echo, nobody(own) as gateway:
        await gateway.TakeIdentity(identity(echo.server.address))
        stub = EchoStub(own.channel)
        await gateway.TakeIdentity(identity(echo.server.address, lasts_s=1e-6))

        async def ended() -> None:
            with pytest.raises(llmesh.Unavailable) as raised:
                await stub.Unary(HELLO, timeout=30)
            assert raised.value.reason == "NO_IDENTITY"

        await eventually(ended)
        await gateway.TakeIdentity(identity(echo.server.address))
        assert (await stub.Unary(HELLO, timeout=30)).text == "hello"


async def test_nobody_who_comes_through_the_mesh_says_who_a_tool_is() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(EchoServicer()) as echo, testing.run(HeraldServicer(), own_mesh=own) as tool:
        stub = IdentityServiceStub(tool.channel)
        with pytest.raises(llmesh.Denied) as raised:
            await stub.TakeIdentity(identity(echo.server.address), metadata=((CALL_ID_KEY, "c-1"),))

    assert raised.value.reason == "NOT_THE_GATEWAY"
    with pytest.raises(llmesh.Unavailable):
        _ = own.channel


async def test_a_tool_takes_no_other_tools_identity() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(HeraldServicer(), own_mesh=own) as tool:
        with pytest.raises(llmesh.Unimplemented):
            await IdentityServiceStub(tool.channel).TakeIdentity(identity("127.0.0.1:1", service=ECHO))

    with pytest.raises(llmesh.Unavailable):
        _ = own.channel


async def test_a_tool_that_calls_nothing_in_its_own_right_takes_no_identity() -> None:
    async with testing.run(HeraldServicer()) as tool:
        with pytest.raises(llmesh.Unimplemented):
            await IdentityServiceStub(tool.channel).TakeIdentity(identity("127.0.0.1:1"))


async def test_the_token_is_in_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    own = llmesh.OwnMesh()
    async with testing.run(EchoServicer()) as echo, nobody(own) as gateway:
        await gateway.TakeIdentity(identity(echo.server.address))
        seen = await EchoStub(own.channel).WhoAmI(pb.WhoAmIRequest(), timeout=30)

    assert "llmesh-delegation" not in seen.metadata_keys
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(own.__dict__)


async def test_a_call_cannot_close_what_others_share() -> None:
    own = llmesh.OwnMesh()
    async with testing.run(HeraldServicer(), own_mesh=own, mesh=(EchoServicer(),)):
        async with own.channel:
            pass

        assert (await EchoStub(own.channel).Unary(HELLO, timeout=30)).text == "hello"


@pytest.mark.parametrize(
    ("servicers", "service", "why"),
    [
        ((HeraldServicer(), EchoServicer()), "", "says which of the tools here it is"),
        ((HeraldServicer(),), ECHO, "says which of the tools here it is"),
        ((EchoServicer(),), "", f"no method of `{ECHO}` lists another under `uses`"),
    ],
    ids=["one of several", "one that is not here", "one that uses nothing"],
)
def test_a_server_says_at_once_that_nobody_could_call_so(servicers: tuple[object, ...], service: str, why: str) -> None:
    with pytest.raises(llmesh.ServeError, match=why):
        llmesh.Server(*servicers, address="unix:/tmp/never.sock", own_mesh=llmesh.OwnMesh(service))


async def test_one_of_several_tools_of_a_server_calls_in_its_own_right() -> None:
    own = llmesh.OwnMesh(HERALD)
    async with testing.run(HeraldServicer(), EchoServicer(), own_mesh=own, mesh=(EchoServicer(),)):
        assert (await EchoStub(own.channel).Unary(HELLO, timeout=30)).text == "hello"
