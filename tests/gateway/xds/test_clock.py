"""Envoy's wall clock is set, ahead and back: tokens are judged by it, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any as Untyped

import grpc
import pytest

from tests.e2e.traffic import Traffic
from tests.envoy import Mesh, Metadata, bearer, mesh, method_of, token
from tests.eventually import eventually
from tests.wall_clock import WallClock, needs_compiler

SERVICE = "acme.support.v1.Tickets"
GET, HELD = f"/{SERVICE}/Get", f"/{SERVICE}/Held"
OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
DAY_S = 86400
# As much as tokens of a clock that is a little wrong are given.
LITTLE_S = 40
STEPS = pytest.mark.parametrize("step_s", [DAY_S, -DAY_S], ids=["ahead", "back"])

pytestmark = needs_compiler


@asynccontextmanager
async def clocked(folder: Path) -> AsyncGenerator[tuple[Mesh, WallClock]]:
    clock = WallClock(folder)
    env = await asyncio.to_thread(lambda: clock.env)
    async with mesh(env={**os.environ, **env}) as running:
        tool = running.tool(SERVICE, method_of("Get"), method_of("Held"))
        await running.publish(tool)
        yield running, clock


async def told(running: Mesh, step_s: int) -> None:
    """Envoy goes by the clock that is off by so much."""
    answer = await running.call(GET)

    async def logged() -> None:
        found = [line["time"] for line in running.logged() if line["call_id"] == answer.metadata["x-llmesh-call-id"]]
        assert len(found) == 1
        assert abs(datetime.fromisoformat(found[0]).timestamp() - time.time() - step_s) < LITTLE_S / 2

    await eventually(logged)


@STEPS
async def test_calls_that_are_open_do_not_notice(tmp_path: Path, step_s: int) -> None:
    async with clocked(tmp_path) as (running, clock):
        let_go = running.backend.held[HELD] = asyncio.Event()
        held = asyncio.create_task(running.call(HELD))

        async def is_held() -> None:
            assert running.backend.calls[HELD]

        await eventually(is_held)
        clock.step(step_s)
        await told(running, step_s)
        let_go.set()
        assert (await held).code is OK


def minted(name: str, *, step_s: int = 0) -> Metadata:
    """A token that nobody has shown yet, minted by a clock that is off by so much."""
    now = int(time.time()) + step_s
    return bearer(token(sub=name, iat=now, exp=now + 3600))


@STEPS
async def test_tokens_are_those_of_envoys_time_and_believed_again_once_it_is_right(tmp_path: Path, step_s: int) -> None:
    async with clocked(tmp_path) as (running, clock):
        before, of_then = minted("before"), minted("then", step_s=step_s)
        assert [(await running.call(GET, each)).code for each in (before, of_then)] == [OK, UNAUTHENTICATED]
        clock.step(step_s)
        await told(running, step_s)
        meanwhile = minted("meanwhile")
        assert [(await running.call(GET, each)).code for each in (meanwhile, of_then)] == [UNAUTHENTICATED, OK]
        clock.step(0)
        await told(running, 0)
        after = minted("after")
        assert {(await running.call(GET, each)).code for each in (before, meanwhile, after)} == {OK}


@pytest.mark.parametrize("step_s", [LITTLE_S, -LITTLE_S], ids=["ahead", "back"])
async def test_a_clock_that_is_set_a_little_fails_no_call(tmp_path: Path, step_s: int) -> None:
    async with clocked(tmp_path) as (running, clock):
        signed = bearer(token())
        channel: Untyped = running.channel
        async with Traffic(lambda: channel.unary_unary(GET)(b"", metadata=signed, timeout=60)) as traffic:
            clock.step(step_s)
            await told(running, step_s)
            await traffic.more(50)
            clock.step(0)
            await traffic.more(50)
    assert traffic.failures == {}
