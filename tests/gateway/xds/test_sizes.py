"""Requests that are larger than their contract says reach no tool, whatever it is written in: with the real Envoy."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from typing import Any as Untyped

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.snapshot.sizes import MAX_HELD_BYTES, held_to
from governance.bundle import parse_bundle
from llmesh.api.options.v1 import options_pb2 as options
from tests.e2e.raw import Answer, RawConnection, frame
from tests.envoy import Backend, Mesh, bearer, mesh, method_of, policy_of, token
from tests.governance.rules import domain, rule
from tests.governance.rules import mesh as mesh_file

SERVICE, SECRET = "acme.support.v1.Tickets", "acme.support.v1.Secret"
OK, INVALID_ARGUMENT, UNIMPLEMENTED = "0", "3", "12"
# The second takes several frames of HTTP/2.
SMALL, LARGE = 100, 60_000
BUNDLE = parse_bundle(
    mesh_file(rule("reads", "permit", applies="{effects: [read]}")),
    domain("support", rule("personal", "forbid", "'pii' in tool.data_classes && !('pii' in caller.clearances)")),
)


def sized(max_request_bytes: int) -> options.Method:
    return options.Method(max_request_bytes=max_request_bytes)


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        tool = made.tool(
            SERVICE,
            method_of("Small", options=sized(SMALL)),
            method_of("Large", options=sized(LARGE)),
            method_of(
                "Largest", options=options.Method(max_request_bytes=MAX_HELD_BYTES, max_response_bytes=MAX_HELD_BYTES)
            ),
            method_of("Many", options=sized(SMALL), server_streaming=True),
            method_of("Stream", options=sized(SMALL), client_streaming=True),
            method_of("Any"),
            method_of("Answer", options=options.Method(max_response_bytes=SMALL)),
            method_of("Answers", options=options.Method(max_response_bytes=SMALL), server_streaming=True),
        )
        hidden = made.tool(SECRET, method_of("Small", options=sized(SMALL), data_classes=("pii",)), hidden=True)
        await made.publish(tool, hidden, policy=policy_of(BUNDLE))
        yield made


async def send(running: Mesh, method: str, body: bytes, service: str = SERVICE, **claims: object) -> Answer:
    def sent() -> Answer:
        with RawConnection(running.port) as connection:
            fields = (("grpc-encoding", "gzip"), *bearer(token(claims)))
            return connection.call(f"/{service}/{method}", *fields, body=body)

    return await asyncio.to_thread(sent)


@pytest.mark.parametrize(("method", "limit"), [("Small", SMALL), ("Large", LARGE), ("Many", SMALL)])
async def test_a_request_has_as_many_bytes_as_the_contract_says_and_no_more(
    running: Mesh, method: str, limit: int
) -> None:
    assert (await send(running, method, frame(bytes(limit)))).get("grpc-status") == OK
    assert running.backend.calls.total() == 1

    answer = await send(running, method, frame(bytes(limit + 1)))

    words = f"the request has more than {limit} bytes, which is the most that {SERVICE}/{method} takes"
    status = status_pb2.Status.FromString(base64.b64decode(answer.get("grpc-status-details-bin") + "=="))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (answer.get("grpc-status"), answer.get("grpc-message"), status.message) == (INVALID_ARGUMENT, words, words)
    assert (info.reason, dict(info.metadata)) == ("REQUEST_TOO_LARGE", {"max_bytes": str(limit)})
    assert answer.get("x-llmesh-call-id")
    assert running.backend.calls.total() == 1


async def test_the_largest_size_that_envoy_keeps_is_exact(running: Mesh) -> None:
    channel: Untyped = running.channel

    async def call(size: int) -> None:
        await channel.unary_unary(f"/{SERVICE}/Largest")(bytes(size), metadata=bearer(token()), timeout=30)

    await call(MAX_HELD_BYTES)
    for size in (MAX_HELD_BYTES + 1, 5 * MAX_HELD_BYTES):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(size)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"more than {MAX_HELD_BYTES} bytes" in (refused.value.details() or "")
    assert running.backend.calls.total() == 1


async def test_several_messages_are_no_way_round(running: Mesh) -> None:
    assert (await send(running, "Small", frame(bytes(60)) * 2)).get("grpc-status") == INVALID_ARGUMENT
    assert not running.backend.calls


async def test_a_compressed_request_is_judged_as_it_travels(running: Mesh) -> None:
    # The SDK judges it again by what it holds.
    assert (await send(running, "Small", frame(bytes(10_000), compress=True))).get("grpc-status") == OK
    noise = b"".join(token(sub=str(number)).encode() for number in range(3))
    assert (await send(running, "Small", frame(noise, compress=True))).get("grpc-status") == INVALID_ARGUMENT


async def test_what_states_no_size_and_streams_are_not_held_back(running: Mesh) -> None:
    for method in ("Any", "Stream"):
        assert (await send(running, method, frame(bytes(LARGE)))).get("grpc-status") == OK


async def test_a_size_does_not_tell_that_a_hidden_tool_is_there(running: Mesh) -> None:
    answer = await send(running, "Small", frame(bytes(SMALL + 1)), SECRET)
    assert answer.get("grpc-status") == UNIMPLEMENTED

    cleared = await send(running, "Small", frame(bytes(SMALL + 1)), SECRET, clearances=["pii"])
    assert cleared.get("grpc-status") == INVALID_ARGUMENT


def answering(monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    """Have the backend answer with so many bytes, call after call."""
    left = list(sizes)

    async def answer(_: Backend, __: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        context.set_trailing_metadata((("x-own", "kept"),))
        return bytes(left.pop(0))

    monkeypatch.setattr(Backend, "answer", answer)


@pytest.mark.parametrize(("method", "limit"), [("Answer", SMALL), ("Largest", MAX_HELD_BYTES)])
async def test_a_response_has_as_many_bytes_as_the_contract_says_and_no_more(
    running: Mesh, monkeypatch: pytest.MonkeyPatch, method: str, limit: int
) -> None:
    answering(monkeypatch, limit, limit + 1, 2 * limit, 0)
    path = f"/{SERVICE}/{method}"

    fits, *larger, empty = [await running.call(path) for _ in range(4)]

    assert (fits.code, len(fits.body), fits.metadata["x-own"]) == (grpc.StatusCode.OK, limit, "kept")
    assert (empty.code, empty.body) == (grpc.StatusCode.OK, b"")
    for answer in larger:
        assert (answer.code, answer.body) == (grpc.StatusCode.INTERNAL, b"")
        assert answer.message == f"the response has more than {limit} bytes, which is the most that {path[1:]} gives"
        assert (answer.info.reason, dict(answer.info.metadata)) == ("RESPONSE_TOO_LARGE", {"max_bytes": str(limit)})
        assert answer.metadata["x-llmesh-call-id"]


async def test_a_tools_own_error_passes_where_responses_are_held_to_a_size(running: Mesh) -> None:
    running.backend.failing = 2

    answer = await running.call(f"/{SERVICE}/Answer")

    assert (answer.code, answer.message) == (grpc.StatusCode.UNAVAILABLE, "not now")


async def test_responses_that_stream_are_not_held_back(running: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, LARGE)

    assert len((await running.call(f"/{SERVICE}/Answers")).body) == LARGE


def test_sizes_that_would_fill_envoys_memory_and_streams_are_left_to_the_sdk() -> None:
    def held(size: int, **shape: bool) -> tuple[int, int]:
        return held_to(
            method_of("Get", options=options.Method(max_request_bytes=size, max_response_bytes=size), **shape)
        )

    assert held(MAX_HELD_BYTES) == (MAX_HELD_BYTES, MAX_HELD_BYTES)
    assert held(MAX_HELD_BYTES + 1) == (0, 0)
    assert held(5, client_streaming=True) == (0, 5)
    assert held(5, server_streaming=True) == (5, 0)
