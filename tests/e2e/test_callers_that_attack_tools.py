"""What a tool answers one caller takes it away from nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any as Untyped

import pytest

from gateway.catalog import Endpoint
from gateway.snapshot import service
from tests.e2e.raw import Answer, RawConnection, frame
from tests.envoy import Mesh, bearer, mesh, method_of, token, tool_of
from tests.hostile.obedient import Tool

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
CALLS, ROUNDS = 100, 5
ENDPOINTS = 2


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[Mesh, list[Tool]]]:
    """A tool at two endpoints. Its method is tried once, as one that changes something."""
    async with mesh() as running, AsyncExitStack() as listening:
        tools, ends = [Tool() for _ in range(ENDPOINTS)], list[Endpoint]()
        for number, tool in enumerate(tools):
            path = f"{running.folder}/{number}.sock"
            await listening.enter_async_context(await asyncio.start_unix_server(tool.serve, path))
            ends.append(Endpoint(f"unix:{path}", "file"))
        made = tool_of(SERVICE, ends[0].address, method_of("Get", idempotent=False))
        await running.publish(replace(made, endpoints=tuple(ends), ready=frozenset(ends)))
        yield running, tools


async def provoke(running: Mesh, order: str) -> Counter[str]:
    """What others get from the tool after one caller had it fail so often: code -> calls."""

    def ask(connection: RawConnection, *fields: tuple[str, str]) -> Answer:
        return connection.call(GET, *bearer(token()), *fields, body=frame(b""))

    soon = (("grpc-timeout", "1m"),) if order == "silence" else ()

    def calls() -> Counter[str]:
        found: Counter[str] = Counter()
        with RawConnection(running.port) as caller, RawConnection(running.port) as other:
            for _ in range(ROUNDS):
                failed = [ask(caller, ("x-order", order), *soon).get("grpc-status") for _ in range(CALLS // ROUNDS)]
                assert "0" not in failed
                found += Counter(ask(other).get("grpc-status") for _ in range(CALLS // ROUNDS))
        return found

    return await asyncio.to_thread(calls)


@pytest.mark.parametrize("order", ["14", "13", "8", "2", "reset", "silence"])
async def test_a_tool_that_fails_one_caller_a_hundred_times_serves_the_others(order: str) -> None:
    async with served() as (running, tools):
        assert await provoke(running, order) == {"0": CALLS}
        # Neither endpoint was left out.
        assert min(tool.served for tool in tools) > CALLS // 10


async def test_by_envoys_defaults_one_caller_would_take_the_tool_from_all(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults: dict[str, Untyped] = {"max_ejection_percent": {"value": 100}, "consecutive_5xx": {"value": 5}}
    monkeypatch.setattr(service, "_outlier_detection", lambda: defaults)
    async with served() as (running, _):
        assert (await provoke(running, "14"))["14"] > 0
