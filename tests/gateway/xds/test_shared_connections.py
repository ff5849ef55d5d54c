"""Callers share no connection to a tool: what makes a tool end one is its sender's loss alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest

from gateway.snapshot import service
from governance.bundle import parse_bundle
from llmesh.api.options.v1 import options_pb2 as options
from tests.e2e.admin import stat
from tests.envoy import Answer, Mesh, bearer, call, mesh, method_of, policy_of, token
from tests.eventually import eventually
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule
from tests.hostile.connection import Connection

SERVICE = "acme.support.v1.Tickets"
HELD = f"/{SERVICE}/Hold"
POLICY = policy_of(parse_bundle(mesh_file(rule("all", "permit")), {}))
HELD_CALLS = 5


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(made.tool(SERVICE, method_of("Get"), method_of("Hold", options.EFFECT_WRITE)), policy=POLICY)
        yield made


def send_undecodable(port: int, *more: tuple[str, str]) -> None:
    """Calls whose message says that it is compressed, and is not.

    gRPC's C core answers the first of a connection with headers that break HPACK (RFC 7541, 4.2: they lack the size
    update that is due), so that Envoy must end the connection.
    """
    fields = [
        *((":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/Get"), (":authority", "mesh")),
        *(("content-type", "application/grpc"), ("te", "trailers"), *bearer(token(sub="eve")), *more),
    ]
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    with Connection(port) as connection:
        for _ in range(HELD_CALLS):
            connection.answer(connection.request(encoded, b"\x01\x00\x00\x00\x05abcde"))


@pytest.mark.parametrize("more", [(), (("grpc-encoding", "gzip"),), (("grpc-encoding", "identity"),)], ids=str)
async def test_a_message_that_cannot_be_decoded_cuts_no_other_callers_calls(
    running: Mesh, more: tuple[tuple[str, str], ...]
) -> None:
    let_go = running.backend.held[HELD] = asyncio.Event()
    held = [asyncio.create_task(running.call(HELD)) for _ in range(HELD_CALLS)]

    async def all_are_held() -> None:
        assert running.backend.calls[HELD] == HELD_CALLS

    await eventually(all_are_held)
    await asyncio.to_thread(send_undecodable, running.port, *more)
    let_go.set()

    answers: list[Answer] = await asyncio.gather(*held)
    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}
    assert (await running.call(f"/{SERVICE}/Get")).code is grpc.StatusCode.OK


async def test_clients_that_leave_leave_no_connection_to_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy keeps the pool of a client's connection after that has closed (envoyproxy/envoy#37617)."""
    monkeypatch.setattr(service, "IDLE_S", 1)
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        for _ in range(5):
            alone = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=alone) as channel:
                answer = await call(channel, f"/{SERVICE}/Get", bearer(token()))
            assert answer.code is grpc.StatusCode.OK

        async def none_is_left() -> None:
            found = await asyncio.to_thread(
                stat, running.folder / "admin.sock", f"cluster.{SERVICE}.upstream_cx_active"
            )
            assert found == 0

        await eventually(none_is_left)
