"""What rules cost: to a call by how many others there are, to load by the thousand, and to edit; and how well held.

Cells and mutants are those of tests/differential: how many cells the real
Envoy answers as governance decides, and how many mistakes make some differ.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from llmesh.identity import DevCaller
from tests.bench.backend import SERVICE, backend
from tests.bench.figures import Figure
from tests.bench.fleet_contracts import service_of
from tests.bench.fleet_mesh import Fleet, fleet
from tests.bench.load import BUSY, load
from tests.bench.processes import cpu_s
from tests.differential.compare import differences
from tests.differential.hunt import hunt
from tests.differential.world import NO_FLOODS, SEED, world_of
from tests.e2e.mesh import RunningMesh, running_mesh
from tests.envoy import mesh as lone_mesh

ROUNDS = 10
CALLS = 15_000
FEW, MANY = 10, 10_000
TOOLS = 1_000
EDITS = 5
LIMIT_S = 120
PAUSE_S = 0.002
CALLER = DevCaller("sam", roles=("editor",), domain="support")
# Whom the rules forbid what all others may.
FORBIDDEN = DevCaller("mallory", domain="engineering")
READS = "- {id: reads, effect: permit, applies: {effects: [read]}, reason: all read}\n"


def measure() -> list[Figure]:
    """The figures. Raises MissingPackageError."""
    changes = asyncio.run(_changes())
    equal, caught = asyncio.run(_held_equal())
    return [
        Figure("rules_scaling", _scaling(), "ratio", 1.1),
        Figure("bundle_load_1000x1000_s", changes.loaded_s, "s", 5),
        Figure("bundle_load_gateway_cpu_s", changes.loaded_cpu_s, "CPU-s"),
        Figure("bundle_load_failed_calls", changes.failed, "calls", 0),
        Figure("rule_edit_ms", 1000 * changes.edited_s, "ms", 500),
        Figure("rule_edit_gateway_cpu_ms", 1000 * changes.edited_cpu_s, "CPU-ms"),
        Figure("differential_cells", equal, "cells", 5000, ">="),
        Figure("mutants_caught", caught, "mutants", 20, ">="),
    ]


# CPU time of a call, with few rules and with many.


@dataclass(frozen=True, slots=True)
class Ruled:
    """A mesh, and the processes that take part in a call."""

    mesh: RunningMesh
    pids: tuple[int, ...]

    def cpu_of_calls(self) -> float:
        """CPU time that many calls take."""
        before = sum(map(cpu_s, self.pids))
        load(self.mesh.port, CALLS, shape=BUSY, headers={"authorization": f"Bearer {self.mesh.token(CALLER)}"})
        return sum(map(cpu_s, self.pids)) - before


def _scaling() -> float:
    """With many rules, as a multiple of that with few: the median of rounds that load both in turn."""
    with _ruled(FEW) as few, _ruled(MANY) as many:
        few.cpu_of_calls()
        many.cpu_of_calls()
        rounds = [_ratio(many, few) if number % 2 else 1 / _ratio(few, many) for number in range(ROUNDS)]
    return statistics.median(rounds)


def _ratio(first: Ruled, second: Ruled) -> float:
    """CPU time of calls of the first, as a multiple of the second's. What else the machine does favours either."""
    return first.cpu_of_calls() / second.cpu_of_calls()


@contextmanager
def _ruled(count: int) -> Generator[Ruled]:
    """A mesh with so many rules: ten bear on the tool that is called, the others on others."""
    with running_mesh(start=False) as mesh, backend(mesh.folder) as behind:
        (mesh.folder / "policies/domains/support.yaml").unlink()
        of_others = (f"acme.support.v1.Other{number}" for number in range(count - FEW))
        _write(mesh, [*(_forbid(n, SERVICE, f"mallory{n}") for n in range(FEW)), *map(_forbid_all, of_others)])
        mesh.write_file(endpoints=[{"address": behind.address}])
        mesh.start_gateway()
        mesh.start_envoy()
        mesh.wait_ready(SERVICE)
        yield Ruled(mesh, tuple(each.pid for each in mesh.processes))


def _forbid_all(service: str) -> str:
    return _forbid(int(service.rpartition("Other")[2]) + FEW, service, "mallory")


def _forbid(number: int, service: str, subject: str) -> str:
    """A rule of one service."""
    return (
        f"- {{id: r{number}, effect: forbid, applies: {{services: [{service}]}}, "
        f"when: \"caller.subject == '{subject}'\", reason: not {subject}}}\n"
    )


def _write(mesh: RunningMesh, rules: Iterable[str]) -> None:
    """Have these rules in the mesh's file, all at once."""
    path = mesh.folder / "policies/mesh.yaml"
    draft = path.with_suffix(".new")
    draft.write_text("".join(["version: 1\nrules:\n", READS, *rules]))
    draft.replace(path)


# From a change of the file to the change of what callers may.


@dataclass(frozen=True, slots=True)
class Changes:
    """How long changes of the rules take, and the gateway's CPU time meanwhile; edits: the median of some."""

    loaded_s: float
    loaded_cpu_s: float
    edited_s: float
    edited_cpu_s: float
    failed: int


async def _changes() -> Changes:
    """Load a rule for each of a thousand tools, then edit some, while others call."""
    with fleet(TOOLS) as running:
        _write(running.mesh, [])
        running.start()
        await asyncio.wait_for(running.until_callable(range(TOOLS)), LIMIT_S)
        rules = [_forbid(number, service_of(number), FORBIDDEN.name) for number in range(TOOLS)]
        ended = asyncio.Event()
        others = asyncio.create_task(running.failures(ended))
        loaded_s, loaded_cpu_s = await _change(running, rules, range(TOOLS), forbidden=True)
        edits: list[tuple[float, float]] = []
        for number in range(0, TOOLS, TOOLS // EDITS):
            rules[number] = _forbid(number, service_of(number), "nobody")
            edits.append(await _change(running, rules, [number], forbidden=False))
        ended.set()
        edited_s, edited_cpu_s = (statistics.median(each) for each in zip(*edits, strict=True))
        return Changes(loaded_s, loaded_cpu_s, edited_s, edited_cpu_s, await others)


async def _change(
    running: Fleet, rules: Iterable[str], numbers: Iterable[int], *, forbidden: bool
) -> tuple[float, float]:
    """Seconds from a change of the file to its being in force for these tools, and the gateway's CPU time."""
    began_s, before = time.monotonic(), running.cpu_s("gateway")
    _write(running.mesh, rules)
    await asyncio.wait_for(_until_forbidden(running, numbers, forbidden=forbidden), LIMIT_S)
    return time.monotonic() - began_s, running.cpu_s("gateway") - before


async def _until_forbidden(running: Fleet, numbers: Iterable[int], *, forbidden: bool) -> None:
    """Return when each of the tools refuses, or no longer refuses, the one whom the rules are about."""
    bearer = (("authorization", f"Bearer {running.mesh.token(FORBIDDEN)}"),)
    async with running.channel() as channel:
        for number in numbers:
            while await _is_forbidden(channel, number, bearer) is not forbidden:  # noqa: ASYNC110 - Envoy has no event
                await asyncio.sleep(PAUSE_S)


async def _is_forbidden(channel: grpc.aio.Channel, number: int, bearer: tuple[tuple[str, str], ...]) -> bool:
    call = channel.unary_unary(f"/{service_of(number)}/Get")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        await call(b"", metadata=bearer, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.PERMISSION_DENIED
    return False


# That what is enforced is what is decided.


async def _held_equal() -> tuple[int, int]:
    """Cells that are equal; and mutants that are found out."""
    world = world_of(SEED)
    cells = world.cells()
    async with lone_mesh(limits=NO_FLOODS) as running:
        await running.publish_resources(world.resources(world.tools(running.backend.address)))
        equal = len(cells) - len(await differences(running, cells))
        found = await hunt(running, world, cells)
    return equal, sum(map(bool, found.values()))
