"""What the edge lets through and what it turns away, below gRPC, with the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from gateway.listener.edge import MAX_PATH_BYTES
from tests.e2e.raw import Answer, Header, RawConnection, frame
from tests.envoy import Mesh, bearer, mesh, token, tool_of
from tests.eventually import eventually

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
INVALID_ARGUMENT = "3"
FORGED = (("x-llmesh-call-id", "forged"), ("x_llmesh_call_id", "forged"))
PROVENANCE = ("x-llmesh-provenance", "{}")


@dataclass(slots=True)
class RawTool:
    """A tool below gRPC. sent: the fields of requests, and apart from them their trailers."""

    headers: list[Header] = field(default_factory=list[Header])
    trailers: list[Header] = field(default_factory=list[Header])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: answer every request with nothing, and with trailers that are not the tool's to say."""
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                match event:
                    case h2.events.RequestReceived(headers=found):
                        self.headers += [(str(key), str(value)) for key, value in found or ()]
                    case h2.events.TrailersReceived(headers=found):
                        self.trailers += [(str(key), str(value)) for key, value in found or ()]
                    case h2.events.StreamEnded(stream_id=stream):
                        _answer(connection, stream or 0)
                    case _:
                        pass
            writer.write(connection.data_to_send())
        writer.close()


def _answer(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc"), *FORGED])
    connection.send_data(stream, frame(b""))
    connection.send_headers(stream, [("grpc-status", "0"), *FORGED, PROVENANCE], end_stream=True)


@dataclass(frozen=True, slots=True)
class Edge:
    """A mesh with a raw tool behind it."""

    mesh: Mesh
    tool: RawTool

    async def call(self, path: str, *fields: Header, method: str = "POST", trailers: tuple[Header, ...] = ()) -> Answer:
        """Call as sam."""

        def made() -> Answer:
            with RawConnection(self.mesh.port) as connection:
                carried = [*bearer(token()), *fields]
                return connection.call(path, *carried, body=frame(b""), method=method, trailers=trailers)

        return await asyncio.to_thread(made)


@asynccontextmanager
async def edge_of() -> AsyncGenerator[Edge]:
    async with mesh() as running:
        tool, path = RawTool(), f"{running.folder}/raw.sock"
        async with await asyncio.start_unix_server(tool.serve, path):
            await running.publish(tool_of(SERVICE, f"unix:{path}"))
            yield Edge(running, tool)


@pytest.fixture
async def edge() -> AsyncGenerator[Edge]:
    async with edge_of() as made:
        yield made


async def test_what_a_caller_may_not_say_reaches_no_tool_in_trailers_either(edge: Edge) -> None:
    said = (
        ("x-llmesh-subject", "root"),
        ("x_llmesh_subject", "root"),
        ("x-envoy-retry-on", "5xx"),
        ("authorization", "Bearer secret"),
        ("llmesh-delegation", "secret"),
        ("llmesh_delegation", "secret"),
        ("x-own", "kept"),
    )
    answer = await edge.call(GET, trailers=said)

    assert answer.get("grpc-status") == "0"
    assert edge.tool.trailers == [("x-own", "kept")]


async def test_a_name_with_underscores_that_reads_like_one_of_the_meshs_reaches_no_tool(edge: Edge) -> None:
    spelt = ("x_llmesh_subject", "x-llmesh_roles", "x_llmesh-domain", "x_envoy_retry_on", "x_forwarded_for")
    answer = await edge.call(
        GET, *((name, "root") for name in (*spelt, "x_request_id", "llmesh_delegation")), ("own_key", "kept")
    )

    assert answer.get("grpc-status") == "0"
    assert "root" not in dict(edge.tool.headers).values()
    assert dict(edge.tool.headers)["own_key"] == "kept"


async def test_a_tool_cannot_forge_the_call_id(edge: Edge) -> None:
    answer = await edge.call(GET)

    told = [value for name, value in answer.fields if name.replace("_", "-") == "x-llmesh-call-id"]
    assert told == [dict(edge.tool.headers)["x-llmesh-call-id"]]
    assert answer.get(PROVENANCE[0]) == PROVENANCE[1]


@pytest.mark.parametrize(
    "path",
    [f"{GET}?token=secret", f"{GET}?", f"/{SERVICE}/{'a' * MAX_PATH_BYTES}secret", "/?token=secret"],
    ids=["a query", "an empty query", "too long", "nothing but a query"],
)
async def test_a_path_that_is_no_methods_is_refused_and_its_query_logged_nowhere(edge: Edge, path: str) -> None:
    answer = await edge.call(path)

    assert answer.get("grpc-status") == INVALID_ARGUMENT
    assert answer.get("grpc-message").startswith("a call's path is /package.Service/Method")
    assert edge.tool.headers == []

    async def logged() -> str:
        lines = edge.mesh.logged()
        assert answer.get("x-llmesh-call-id") in {line["call_id"] for line in lines}
        return json.dumps(lines)

    assert "secret" not in await eventually(logged)


async def test_a_fragment_reaches_no_tool(edge: Edge) -> None:
    answer = await edge.call(f"{GET}#secret")

    assert answer.reset or answer.get("grpc-status") not in ("", "0")
    assert edge.tool.headers == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_a_post_is_a_call(edge: Edge, method: str) -> None:
    answer = await edge.call(GET, method=method)

    assert answer.get("grpc-status") == INVALID_ARGUMENT
    assert answer.get("grpc-message") == "this port speaks gRPC: a call is a POST"
    assert edge.tool.headers == []


async def test_an_unknown_method_is_named_in_short(edge: Edge) -> None:
    path = f"/{SERVICE}/{'a' * 400}"
    answer = await edge.mesh.call(path)

    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    assert answer.message.startswith(f"no method {path[:256]} on this mesh")
