"""A client believes the mesh by its certificate, and says what is wrong with one that it does not believe."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

import llmesh
from llmesh.certificates import first_host
from llmesh.cli.edge import problem_of
from tests.pki import Authority, Issued

AUTHORITY = Authority()


class _Answers(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(_: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            told = {key: value for key, value in context.invocation_metadata() or () if key == "authorization"}
            return pb.UnaryResponse(text=str(told["authorization"])).SerializeToString()

        handler: Any = grpc.unary_unary_rpc_method_handler
        return handler(answer)


@asynccontextmanager
async def mesh_with(shown: Issued) -> AsyncGenerator[str]:
    """Where a mesh listens that shows this certificate."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Answers(),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(shown.key, shown.certificate)]))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def called(mesh: llmesh.Mesh) -> str:
    async with mesh:
        return (await EchoStub(mesh.channel).Unary(pb.UnaryRequest(text="a"), timeout=60)).text


async def test_a_mesh_is_believed_by_the_authority_that_is_given_or_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_with(AUTHORITY.issue("127.0.0.1")) as address:
        assert await called(llmesh.Mesh(address, "t", root_certificates=AUTHORITY.pem)) == "Bearer t"
        monkeypatch.setenv("LLMESH_AUTHORITY", str(AUTHORITY.write(tmp_path)))
        assert await called(llmesh.Mesh(f"https://{address}", "t")) == "Bearer t"
        assert await called(llmesh.Mesh(address, "t", tls=True)) == "Bearer t"


async def test_a_mesh_can_have_another_name_than_its_address() -> None:
    async with mesh_with(AUTHORITY.issue("mesh.acme.example")) as address:
        mesh = llmesh.Mesh(address, "t", root_certificates=AUTHORITY.pem, server_name="mesh.acme.example")
        assert await called(mesh) == "Bearer t"


@pytest.mark.parametrize("name", ["mesh.acme.example", "127.0.0.1", "*.acme.example"])
async def test_a_certificate_is_believed_by_itself_where_it_is_known(name: str) -> None:
    shown = AUTHORITY.issue(name)
    async with mesh_with(shown) as address:
        known = shown.certificate
        mesh = llmesh.Mesh(address, "t", root_certificates=known, server_name=first_host(Path("x"), known))
        assert await called(mesh) == "Bearer t"


@pytest.mark.parametrize(
    ("shown", "says", "step"),
    [
        (
            Authority("other").issue("127.0.0.1"),
            "is not believed: unable to get local issuer certificate",
            "LLMESH_AUTHORITY",
        ),
        (AUTHORITY.issue("10.0.0.1"), "does not name the host", "--address"),
        (AUTHORITY.issue("localhost"), "does not name the host", "--address"),
    ],
    ids=["of another authority", "of another host", "of a name for the address"],
)
async def test_another_certificate_gets_no_token_and_is_told_in_words(shown: Issued, says: str, step: str) -> None:
    async with mesh_with(shown) as address:
        with pytest.raises(llmesh.Unavailable) as refused:
            await called(llmesh.Mesh(address, "t", root_certificates=AUTHORITY.pem))
    problem = problem_of(refused.value)
    assert says in problem.message
    assert step in problem.step


def test_roots_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMESH_AUTHORITY", "/nowhere/roots.pem")
    llmesh.Mesh("127.0.0.1:1", "t")
    with pytest.raises(ValueError, match=r"`/nowhere/roots\.pem`, which LLMESH_AUTHORITY names, cannot be read"):
        llmesh.Mesh("https://127.0.0.1:1", "t")
