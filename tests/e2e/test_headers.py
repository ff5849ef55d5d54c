"""What a client may not say never reaches a tool, and what it says wrongly harms nobody else."""

from __future__ import annotations

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from llmesh._client import open_channel
from tests.e2e.mesh import OWNER, READER, RunningMesh
from tests.e2e.raw import Answer, RawConnection, frame

UNARY = "/acme.testing.v1.Echo/Unary"
WHO_AM_I = "/acme.testing.v1.Echo/WhoAmI"
SPOOFED = (
    ("x-llmesh-issuer", "https://elsewhere"),
    ("x-llmesh-subject", "root"),
    ("x-llmesh-domain", "testing"),
    ("x-llmesh-roles", "owner"),
    ("x-llmesh-clearances", "pii"),
    ("x-llmesh-actor", "robot"),
    ("x-llmesh-call-id", "mine"),
    ("x-llmesh-new", "anything"),
)
ENVOYS = (
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-original-path", "/elsewhere"),
    ("x-envoy-force-trace", "1"),
    ("x-envoy-internal", "true"),
)
INVALID_ARGUMENT = "3"


def signed_in(mesh: RunningMesh) -> tuple[str, str]:
    return ("authorization", f"Bearer {mesh.token(READER)}")


def hello(connection: RawConnection, *fields: tuple[str, str]) -> Answer:
    return connection.call(UNARY, *fields, body=frame(pb.UnaryRequest(text="hello").SerializeToString()))


async def test_a_caller_cannot_say_who_it_is(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        metadata = (*mesh.bearer(READER), *SPOOFED)
        who = await EchoStub(channel).WhoAmI(pb.WhoAmIRequest(), metadata=metadata)
    assert (who.issuer, who.subject, who.domain, [*who.roles]) == ("dev", "ada", "engineering", [])
    assert ([*who.clearances], who.actor) == ([], "")
    assert who.call_id not in ("", "mine")
    assert "x-llmesh-new" not in who.metadata_keys


def test_repeated_headers_do_not_slip_past_the_strip(mesh: RunningMesh) -> None:
    with RawConnection(mesh.port) as connection:
        twice = [("x-llmesh-roles", "owner"), ("x-llmesh-roles", "editor"), ("x-llmesh-subject", "root")]
        answer = connection.call(WHO_AM_I, signed_in(mesh), *twice, body=frame(b""))
    who = pb.WhoAmIResponse.FromString(answer.message)
    assert (who.subject, [*who.roles]) == ("ada", [])


async def test_token_and_envoys_own_headers_reach_no_tool(mesh: RunningMesh) -> None:
    forwarded = (("x-forwarded-for", "8.8.8.8"), ("x-forwarded-proto", "https"), ("x-request-id", "mine"))
    async with open_channel(mesh.address) as channel:
        metadata = (*mesh.bearer(READER), *ENVOYS, *forwarded, ("x-own", "kept"))
        who = await EchoStub(channel).WhoAmI(pb.WhoAmIRequest(), metadata=metadata)
    assert "authorization" not in who.metadata_keys
    assert not {key for key, _ in ENVOYS} & {*who.metadata_keys}
    assert "x-forwarded-for" not in who.metadata_keys
    assert "x-own" in who.metadata_keys
    assert who.call_id != "mine"


async def test_a_caller_cannot_steer_envoy(mesh: RunningMesh) -> None:
    request = pb.UnaryRequest(text="late", orders=pb.Orders(delay=Duration(nanos=300_000_000)))
    async with open_channel(mesh.address) as channel:
        answer = await EchoStub(channel).Unary(request, metadata=(*mesh.bearer(READER), *ENVOYS))
    assert answer.text == "late"


@pytest.mark.parametrize("value", ["abc", "1", "5X", "123456789S", "-1S", "1.5S"])
async def test_a_malformed_timeout_is_refused_and_harms_no_later_call(mesh: RunningMesh, value: str) -> None:
    with RawConnection(mesh.port) as connection:
        refused = hello(connection, signed_in(mesh), ("grpc-timeout", value))
        assert refused.get("grpc-status") == INVALID_ARGUMENT
        assert "grpc-timeout" in refused.get("grpc-message")
        # The same way to the tool: this connection is served by the same worker of Envoy.
        later = [hello(connection, signed_in(mesh), ("grpc-timeout", "30S")).get("grpc-status") for _ in range(20)]
    assert later == ["0"] * 20
    await assert_20_calls_succeed(mesh)


async def test_an_unknown_encoding_harms_no_later_call(mesh: RunningMesh) -> None:
    gzip = ("grpc-encoding", "gzip")
    body = frame(pb.UnaryRequest(text="zip").SerializeToString(), compress=True)
    with RawConnection(mesh.port) as connection:
        refused = connection.call(UNARY, signed_in(mesh), ("grpc-encoding", "llzip"), body=body)
        later = [connection.call(UNARY, signed_in(mesh), gzip, body=body).get("grpc-status") for _ in range(20)]
    assert refused.get("grpc-status") not in ("", "0")
    assert later == ["0"] * 20
    await assert_20_calls_succeed(mesh)


@pytest.mark.parametrize("content_type", ["application/json", "application/grpcfoo", "text/html", ""])
def test_what_is_not_grpc_is_refused_at_the_edge(mesh: RunningMesh, content_type: str) -> None:
    body = frame(pb.UnaryRequest(text="hello").SerializeToString())
    with RawConnection(mesh.port) as connection:
        answer = connection.call(UNARY, signed_in(mesh), body=body, content_type=content_type)
        assert hello(connection, signed_in(mesh)).get("grpc-status") == "0"
    assert "hello" not in answer.data.decode()
    assert answer.get(":status") == "415"


def test_too_much_metadata_is_refused_and_harms_no_later_call(mesh: RunningMesh) -> None:
    with RawConnection(mesh.port) as connection:
        refused = hello(connection, signed_in(mesh), *((f"x-large-{number}", "a" * 8000) for number in range(10)))
    assert refused.reset or refused.get(":status") == "431"
    with RawConnection(mesh.port) as connection:
        assert hello(connection, signed_in(mesh)).get("grpc-status") == "0"


async def assert_20_calls_succeed(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        echo = EchoStub(channel)
        for number in range(20):
            request = pb.UnaryRequest(text=str(number))
            call = echo.Unary(
                request, timeout=20 + number, metadata=mesh.bearer(OWNER), compression=grpc.Compression.Gzip
            )
            assert (await call).text == str(number)
