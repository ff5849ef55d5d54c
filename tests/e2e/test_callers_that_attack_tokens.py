"""Tokens that are not believed: how many are looked at, and who pays for it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any as Untyped

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.listener.bootstrap import Edge
from llmesh.mesh_file import LimitSettings
from tests import envoy
from tests.e2e.raw import Answer, RawConnection, frame
from tests.envoy import Backend, Mesh, bearer, mesh, token
from tests.eventually import eventually

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
OK, EXHAUSTED, UNAUTHENTICATED = "0", "8", "16"
# As many as even a slow machine sends within a second, many times over.
TRIES = 500
FORGED = token()[:-8] + "AAAAAAAA"


@asynccontextmanager
async def limited(monkeypatch: pytest.MonkeyPatch, refused_tokens_per_s: int) -> AsyncGenerator[Mesh]:
    limits = LimitSettings(refused_tokens_per_s=refused_tokens_per_s)
    monkeypatch.setattr(envoy, "Edge", partial(Edge, limits=limits))
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        yield running


def call(connection: RawConnection, text: str) -> Answer:
    return connection.call(GET, *bearer(text), body=frame(b""))


def flood(connection: RawConnection, meanwhile: Callable[[], object] = lambda: None) -> Answer:
    """Show forged tokens until one is refused unread."""
    for _ in range(TRIES):
        answer = call(connection, FORGED)
        assert answer.get("grpc-status") in (UNAUTHENTICATED, EXHAUSTED)
        if answer.get("grpc-status") == EXHAUSTED:
            return answer
        meanwhile()
    raise AssertionError(f"{TRIES} forged tokens were looked at")


async def test_a_flood_of_forged_tokens_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(monkeypatch, 1) as running:

        def attacked() -> Answer:
            with RawConnection(running.port) as attacker:
                return flood(attacker)

        answer = await asyncio.to_thread(attacked)

        async def logged() -> None:
            assert "lua_response" in {line["details"] for line in running.logged()}

        await eventually(logged)

    status = status_pb2.Status.FromString(base64.b64decode(answer.get("grpc-status-details-bin") + "=="))
    retry: Untyped = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert (status.code, retry.retry_delay.seconds) == (8, 1)
    assert status.message.startswith("too many tokens from this address were not believed")
    assert answer.get("x-llmesh-call-id")


async def test_a_flood_harms_no_other_connection_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(monkeypatch, 1) as running:
        good = token()

        def attacked() -> list[str]:
            codes: list[str] = []
            with RawConnection(running.port) as attacker, RawConnection(running.port) as other:
                for _ in range(3):
                    flood(attacker, lambda: codes.append(call(other, good).get("grpc-status")))
                    codes.append(call(other, good).get("grpc-status"))
                    with RawConnection(running.port) as newcomer:
                        codes.append(call(newcomer, good).get("grpc-status"))
            return codes

        assert set(await asyncio.to_thread(attacked)) == {OK}


async def test_a_connection_that_flooded_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(monkeypatch, 1) as running:
        with RawConnection(running.port) as attacker:
            await asyncio.to_thread(flood, attacker)

            async def heard() -> None:
                answer = await asyncio.to_thread(call, attacker, token())
                assert answer.get("grpc-status") == OK

            await eventually(heard)


async def test_without_the_limit_every_token_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(monkeypatch, 0) as running:

        def attacked() -> set[str]:
            with RawConnection(running.port) as attacker:
                return {call(attacker, FORGED).get("grpc-status") for _ in range(50)}

        assert await asyncio.to_thread(attacked) == {UNAUTHENTICATED}


async def test_one_bad_token_costs_a_connection_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with limited(monkeypatch, 100) as running:

        def mistaken() -> list[str]:
            with RawConnection(running.port) as caller:
                return [call(caller, text).get("grpc-status") for text in (FORGED, token(), FORGED, token())]

        assert await asyncio.to_thread(mistaken) == [UNAUTHENTICATED, OK, UNAUTHENTICATED, OK]


async def test_what_a_tool_says_of_callers_is_not_taken_for_a_bad_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: Backend, __: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the tool's own word")

    monkeypatch.setattr(Backend, "answer", refuse)
    async with limited(monkeypatch, 1) as running:

        def refused() -> set[str]:
            with RawConnection(running.port) as caller:
                return {call(caller, token()).get("grpc-message") for _ in range(50)}

        assert await asyncio.to_thread(refused) == {"the tool's own word"}
