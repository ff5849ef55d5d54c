"""What a servicer calls for its caller, and where the token goes that the mesh gave it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from llmesh import testing
from llmesh._delegation import AWAY_KEY, DELEGATION_KEY, MESH_KEY, DelegatedMesh, Meshes

TOKEN = "head.payload.signature"  # noqa: S105 no token of anybody's
HELLO = pb.UnaryRequest(text="hello")


@pytest.fixture
async def mesh() -> AsyncGenerator[DelegatedMesh]:
    """What a method of acme.A has that came through a mesh where there is an echo tool, with 20 s left."""
    meshes = Meshes(None)
    async with testing.run(EchoServicer()) as tool:
        given = {DELEGATION_KEY: TOKEN, MESH_KEY: tool.server.address}
        yield meshes.delegated("/acme.A/Ask", given, lambda: 20.0)
        await meshes.close()


async def test_calls_of_every_shape_go_to_the_mesh(mesh: DelegatedMesh) -> None:
    async def requests() -> AsyncIterator[pb.ClientStreamRequest]:
        yield pb.ClientStreamRequest(text="a")
        yield pb.ClientStreamRequest(text="b")

    async def both() -> AsyncIterator[pb.BidiRequest]:
        yield pb.BidiRequest(text="c")

    stub = EchoStub(mesh.channel)

    assert (await stub.Unary(HELLO)).text == "hello"
    assert [each.text async for each in stub.ServerStream(pb.ServerStreamRequest(text="x", count=2))] == ["x", "x"]
    assert (await stub.ClientStream(requests())).text == "a b"
    assert [each.text async for each in stub.Bidi(both())] == ["c"]


async def test_calls_have_the_time_that_is_left_unless_they_say_another(mesh: DelegatedMesh) -> None:
    stub = EchoStub(mesh.channel)

    # gRPC rounds what it sends up a little.
    assert 15_000 < (await stub.Unary(HELLO)).remaining_ms < 21_000
    assert 0 < (await stub.Unary(HELLO, timeout=10)).remaining_ms < 11_000


async def test_what_fails_is_one_of_the_mesh_errors(mesh: DelegatedMesh) -> None:
    with pytest.raises(llmesh.Unimplemented):
        await EchoStub(mesh.channel).Missing(pb.MissingRequest())


async def test_a_call_cannot_close_what_others_share(mesh: DelegatedMesh) -> None:
    async with mesh.channel:
        pass

    assert (await EchoStub(mesh.channel).Unary(HELLO)).text == "hello"


async def test_a_servicer_does_not_see_the_token_and_no_log_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with testing.run(EchoServicer()) as tool:
        given = ((DELEGATION_KEY, TOKEN), (MESH_KEY, "127.0.0.1:1"))
        seen = await EchoStub(tool.channel).WhoAmI(pb.WhoAmIRequest(), metadata=given)

    assert MESH_KEY in seen.metadata_keys
    assert DELEGATION_KEY not in seen.metadata_keys
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(Meshes(None).delegated("/acme.A/Ask", dict(given), lambda: None))


def test_a_method_that_was_called_while_the_gateway_is_away_is_told_so() -> None:
    with pytest.raises(llmesh.Unavailable, match=r"gateway is away, without which acme.A/Ask cannot call") as raised:
        Meshes(None).delegated("/acme.A/Ask", {AWAY_KEY: "true"}, lambda: None)

    assert (raised.value.reason, raised.value.retry_after_s) == ("NO_DELEGATION", 1)


@pytest.mark.parametrize("given", [{}, {MESH_KEY: "127.0.0.1:1"}, {DELEGATION_KEY: TOKEN}])
def test_a_method_that_was_given_no_right_is_told_what_is_missing(given: dict[str, str]) -> None:
    with pytest.raises(llmesh.ToolFailed, match=r"acme.A/Ask was given no right .* under `uses`") as raised:
        Meshes(None).delegated("/acme.A/Ask", given, lambda: None)

    assert raised.value.reason == "NO_DELEGATION"
