"""Cells compared with the real Envoy, many at once over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from tests.differential.cells import Cell
from tests.envoy import Answer, Mesh

AT_ONCE = 48


async def answers(running: Mesh, cells: Iterable[Cell]) -> Sequence[tuple[Cell, Answer]]:
    """What Envoy answers each, in no order."""
    found: list[tuple[Cell, Answer]] = []
    waiting = iter(cells)

    async def ask() -> None:
        found.extend([(cell, await running.call(cell.path, cell.metadata)) for cell in waiting])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(ask())
    return found


async def differences(running: Mesh, cells: Sequence[Cell]) -> Sequence[tuple[Cell, str]]:
    """The cells where Envoy does something else than governance says, and what it does."""
    wrong = ((cell, cell.difference(answer)) for cell, answer in await answers(running, cells))
    return [each for each in wrong if each[1]]


async def differing(running: Mesh, cells: Sequence[Cell]) -> Sequence[Cell]:
    """Some of those cells: it looks no further than it must to find one."""
    for start in range(0, len(cells), AT_ONCE):
        found = await differences(running, cells[start : start + AT_ONCE])
        if found:
            return [cell for cell, _ in found]
    return []


def told(seed: int, found: Sequence[tuple[Cell, str]]) -> str:
    """What a failing test says: how many differ, and the one that is the shortest to read."""
    if not found:
        return ""
    cell, wrong = min(found, key=lambda each: each[0].size)
    return f"seed {seed}: {len(found)} cells differ; the smallest:\n{wrong}\n{cell}"
