"""Cells compared with the real Envoy, many at once over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from tests.differential.cells import Cell
from tests.envoy import Mesh

AT_ONCE = 48


async def differences(running: Mesh, cells: Iterable[Cell], *, most: int = 100) -> Sequence[tuple[Cell, str]]:
    """The cells where Envoy does something else than governance says, and what; it stops after the most wanted."""
    found: list[tuple[Cell, str]] = []
    waiting = iter(cells)

    async def compare(cells: Iterator[Cell]) -> None:
        for cell in cells:
            wrong = cell.difference(await running.call(cell.path, cell.metadata))
            if wrong:
                found.append((cell, wrong))
            if len(found) >= most:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(compare(waiting))
    return found


def told(seed: int, found: Sequence[tuple[Cell, str]]) -> str:
    """What a failing test says: how many differ, and the one that is the shortest to read."""
    if not found:
        return ""
    cell, wrong = min(found, key=lambda each: each[0].size)
    return f"seed {seed}: {len(found)} or more cells differ; the smallest:\n{wrong}\n{cell}"
