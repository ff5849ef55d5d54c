"""Calls that fail, of those that must not, while a mesh's processes are restarted, die, hang and lose their disk.

Which calls may fail is in docs/platform.md, "When something fails": only
those in flight through an Envoy, or to a tool, that dies or hangs. So Envoy is
called by a client that tries again, and tools that die by reads, which are
sent twice; all else by every kind of call.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.figures import Figure

# The echo tool's stubs; by its folder, as pytest has it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tools/echo"))

from tests.e2e.supervised import Supervised, supervised
from tests.eventually import eventually

EVERY = ("reads", "writes", "new connections")
READS = ("reads", "new connections")
ROUNDS = 3
NAMES = ("gateway", "envoy", "one", "two")
AGAIN_S = 60.0
DAY_S = 86400

Case = Callable[[Supervised], Awaitable[None]]


def measure() -> list[Figure]:
    """Every case ROUNDS times, in one mesh."""
    with supervised("one", "two", patience_s=6.0) as mesh:
        failed, calls = asyncio.run(_matrix(mesh))
    return [
        Figure("restart_failed_calls", failed, "calls", 0),
        Figure("restart_calls", calls, "calls"),
        Figure("restart_cases", len(CASES) * ROUNDS, "cases"),
    ]


async def _matrix(mesh: Supervised) -> tuple[int, int]:
    """How many calls failed, of how many."""
    failed = calls = 0
    for _ in range(ROUNDS):
        for name, (kinds, case) in CASES.items():
            await mesh.ready(2)
            await eventually(lambda: _all_answer(mesh), within_s=AGAIN_S)
            async with mesh.traffic(*kinds) as load:
                await case(mesh)
                await load.more()
            if load.failures:
                sys.stderr.write(f"{name}: {load.failures}\n")
            failed += sum(load.failures.values())
            calls += load.calls
    return failed, calls


async def _all_answer(mesh: Supervised) -> None:
    assert all(mesh.child(name).answers for name in NAMES)


def _sent(name: str, number: signal.Signals) -> Case:
    async def case(mesh: Supervised) -> None:
        await mesh.replaced(name, mesh.send(name, number))

    return case


def _restarted(name: str) -> Case:
    async def case(mesh: Supervised) -> None:
        for each in await mesh.restart(name):
            if each.problem:
                raise RuntimeError(each.problem)

    return case


def _during(fault: Callable[[Supervised], AsyncGenerator[None]]) -> Case:
    """A tool comes and goes while something is wrong."""

    async def case(mesh: Supervised) -> None:
        async with asynccontextmanager(fault)(mesh):
            third = mesh.mesh.start_echo("three")
            await mesh.ready(3)
            await asyncio.to_thread(third.stop)

    return case


async def _full_disk(mesh: Supervised) -> AsyncGenerator[None]:
    with mesh.full_disk("gateway", "envoy", "one"):
        yield


async def _hanging_disk(mesh: Supervised) -> AsyncGenerator[None]:
    with mesh.fault("hang"):
        yield


async def _clock_forward(mesh: Supervised) -> AsyncGenerator[None]:
    with mesh.fault("step", str(DAY_S)):
        yield


async def _clock_back(mesh: Supervised) -> AsyncGenerator[None]:
    with mesh.fault("step", str(-DAY_S)):
        yield


async def _link_cut(mesh: Supervised) -> None:
    with mesh.fault("cut"):
        third = mesh.mesh.start_echo("three")
        await asyncio.sleep(1)
    await mesh.ready(3)
    await asyncio.to_thread(third.stop)


# Name -> the calls that must not fail, and what happens.
CASES: dict[str, tuple[tuple[str, ...], Case]] = {
    "gateway restarted": ((*EVERY, "catalog"), _restarted("gateway")),
    "envoy restarted": ((*EVERY, "catalog"), _restarted("envoy")),
    "tool restarted": ((*EVERY, "catalog"), _restarted("one")),
    "gateway dies": (EVERY, _sent("gateway", signal.SIGKILL)),
    "gateway hangs": (EVERY, _sent("gateway", signal.SIGSTOP)),
    "envoy dies": (("patient",), _sent("envoy", signal.SIGKILL)),
    "envoy hangs": (("patient",), _sent("envoy", signal.SIGSTOP)),
    "tool dies": (READS, _sent("one", signal.SIGKILL)),
    "tool hangs": (READS, _sent("one", signal.SIGSTOP)),
    "link cut": ((*EVERY, "catalog"), _link_cut),
    "disk full": ((*EVERY, "catalog"), _during(_full_disk)),
    "disk hangs": ((*EVERY, "catalog"), _during(_hanging_disk)),
    "clock forward": ((*EVERY, "catalog"), _during(_clock_forward)),
    "clock back": ((*EVERY, "catalog"), _during(_clock_back)),
}
