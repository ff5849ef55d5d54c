"""What blocks cost: how soon one is in force, with none and with many beside it, and what they add to a call."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from sqlalchemy import insert

from gateway.blocks.store import CHANGES, TABLES, row_of
from gateway.blocks.words import Action, Block, CallerId, Change, Kind, Target
from gateway.database import open_database
from llmesh import Denied, Mesh, blocks
from llmesh.api.blocks.v1 import blocks_pb2 as pb
from llmesh.identity import DevCaller
from tests.bench.backend import PATH, backend
from tests.bench.figures import Figure
from tests.bench.governed import ENVOY, GATEWAY, Governed, started
from tests.bench.load import BUSY, load
from tests.bench.processes import cpu_s
from tests.e2e.mesh import running_mesh

Call = Callable[..., Awaitable[object]]

ROUNDS = 10
CALLS = 15_000
MANY = 10_000
# Whoever is stopped, by whom, and why.
STOPPED = DevCaller("mallory", roles=("editor",), domain="support")
OPERATOR = DevCaller("ops", roles=("editor",), domain="platform")
REASON = "to see how long it takes"
TARGET = pb.Target(caller=pb.Caller(issuer="dev", subject=STOPPED.name))
PAUSE_S = 0.002
LIMIT_S = 60


def measure() -> list[Figure]:
    """The figures. Raises MissingPackageError."""
    with _stopping(0) as none, _stopping(MANY) as many:
        alone, crowded = ([asyncio.run(_call(each)) for _ in range(ROUNDS)] for each in (none, many))
        commanded_s = statistics.median(asyncio.run(_command(none)) for _ in range(ROUNDS))
        return [
            Figure("block_ms", 1000 * commanded_s, "ms", 1000),
            Figure("block_call_ms", 1000 * _median(alone).in_force_s, "ms"),
            Figure("block_call_10000_ms", 1000 * _median(crowded).in_force_s, "ms"),
            Figure("block_10000_gateway_cpu_ms", 1000 * _median(crowded).gateway_cpu_s, "CPU-ms"),
            Figure("block_10000_envoy_cpu_ms", 1000 * _median(crowded).envoy_cpu_s, "CPU-ms"),
            Figure("blocks_scaling", _scaling(none, many), "ratio"),
        ]


@contextmanager
def _stopping(count: int) -> Generator[Governed]:
    """A mesh that starts with so many callers blocked, who never call."""
    by = CallerId("dev", OPERATOR.name)
    with running_mesh(start=False) as mesh, backend(mesh.folder) as behind:
        made = (Block(f"b{n}", Target(Kind.CALLER, f"bot-{n}", "dev"), REASON, by, 1) for n in range(count))
        rows = [row_of(Change(Action.BLOCKED, block, 1, by)) for block in made]
        if rows:
            engine = open_database(f"sqlite:///{mesh.home.database}", TABLES)
            with engine.begin() as connection:
                connection.execute(insert(CHANGES), rows)
            engine.dispose()
        mesh.write_file(endpoints=[{"address": behind.address}])
        yield started(mesh)


# From the block to the first call that it stops.


@dataclass(frozen=True, slots=True)
class Stopped:
    """How long it took until a call was refused, and the CPU time of gateway and Envoy meanwhile."""

    in_force_s: float
    gateway_cpu_s: float
    envoy_cpu_s: float


def _median(rounds: list[Stopped]) -> Stopped:
    return Stopped(
        statistics.median(each.in_force_s for each in rounds),
        statistics.median(each.gateway_cpu_s for each in rounds),
        statistics.median(each.envoy_cpu_s for each in rounds),
    )


async def _call(running: Governed) -> Stopped:
    """Of a block by the API."""
    async with Mesh(running.mesh.address, running.mesh.token(OPERATOR)) as operator:
        request, pids = pb.BlockRequest(target=TARGET, reason=REASON), (running.pid(GATEWAY), running.pid(ENVOY))
        before_s = [cpu_s(pid) for pid in pids]
        in_force_s = await _until_stopped(running, lambda: blocks.block(operator.channel, request))
        gateway_s, envoy_s = (cpu_s(pid) - before for pid, before in zip(pids, before_s, strict=True))
        await blocks.unblock(operator.channel, pb.UnblockRequest(target=TARGET))
        return Stopped(in_force_s, gateway_s, envoy_s)


async def _command(running: Governed) -> float:
    """Of `llmesh block`, from when it is started."""
    told = {
        "LLMESH_HOME": str(running.mesh.home.path),
        "LLMESH_ADDRESS": running.mesh.address,
        "LLMESH_TOKEN": running.mesh.token(OPERATOR),
    }

    async def command() -> None:
        argv = (sys.executable, "-m", "llmesh.cli", "block", f"dev:{STOPPED.name}", "--reason", REASON)
        process = await asyncio.create_subprocess_exec(*argv, env=os.environ | told, stdout=subprocess.DEVNULL)
        if await process.wait():
            raise AssertionError(running.mesh.said())

    in_force_s = await _until_stopped(running, command)
    async with Mesh(running.mesh.address, running.mesh.token(OPERATOR)) as operator:
        await blocks.unblock(operator.channel, pb.UnblockRequest(target=TARGET))
    return in_force_s


async def _until_stopped(running: Governed, block: Callable[[], Coroutine[None, None, object]]) -> float:
    """Seconds from when the block begins to be made, until its caller, who calls all the time, reads that it is."""
    async with Mesh(running.mesh.address, running.mesh.token(STOPPED)) as caller:
        call = cast("Call", caller.channel.unary_unary(PATH))  # pyright: ignore[reportUnknownMemberType]
        # The end of the block before may not be in force yet.
        await _until(call, stopped=False)
        began_s = time.monotonic()
        blocking = asyncio.create_task(block())
        await _until(call, stopped=True)
        took_s = time.monotonic() - began_s
        await blocking
        return took_s


async def _until(call: Call, *, stopped: bool) -> None:
    while await _is_stopped(call) is not stopped:  # noqa: ASYNC110 - Envoy has no event
        await asyncio.sleep(PAUSE_S)


async def _is_stopped(call: Call) -> bool:
    try:
        await call(b"", timeout=LIMIT_S)
    except Denied as error:
        return error.reason == "BLOCKED"
    return False


# What they add to a call that they let through.


def _scaling(none: Governed, many: Governed) -> float:
    """Envoy's CPU time of calls with many, as a multiple of that with none: the median of rounds of both in turn."""
    for each in (none, many):
        _cpu_of_calls(each)
    rounds = [_ratio(many, none) if number % 2 else 1 / _ratio(none, many) for number in range(ROUNDS)]
    return statistics.median(rounds)


def _ratio(first: Governed, second: Governed) -> float:
    """What else the machine does favours either."""
    return _cpu_of_calls(first) / _cpu_of_calls(second)


def _cpu_of_calls(running: Governed) -> float:
    running.settle()
    before_s = cpu_s(running.pid(ENVOY))
    load(running.mesh.port, CALLS, shape=BUSY, headers=running.headers)
    return cpu_s(running.pid(ENVOY)) - before_s
