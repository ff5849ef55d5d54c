"""A policy that changes for many tools, while others want answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any as Untyped

import pytest

from gateway.catalog import CatalogBoard, Tool
from gateway.compiled import TOOLS_A_TURN
from gateway.control import Control
from gateway.snapshot.build import ROUTES, Resource, Resources
from governance.residue import Residue
from tests.envoy import KEYS, READS, tool_of
from tests.gateway.fakes import FakeClock
from tests.gateway.policy_files import Folder

MANY = 4 * TOOLS_A_TURN


class Publisher:
    """Holds what is published, all of which Envoy has at once."""

    def __init__(self) -> None:
        self.published: list[Resources] = []
        self.refused_names: Mapping[str, bool] = {}

    async def publish(self, resources: Resources, **_: object) -> None:
        self.published.append(resources)

    async def revisions(self) -> AsyncGenerator[int]:
        yield 0
        await asyncio.Event().wait()

    async def caught_up(self, *, within_s: float) -> None:
        assert within_s


async def test_many_tools_are_compiled_in_turns_and_by_one_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found, shown, turns, built = Folder.make(tmp_path), CatalogBoard(), CatalogBoard(), 0, list[int]()
    publisher: Untyped = Publisher()
    control = Control(found, shown, publisher, folder.files(), (), keys=KEYS)
    folder.write("mesh.yaml", READS.replace("effect: permit", "effect: forbid"))
    newer = folder.files().load()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def build_tool(_: Tool, residues: Mapping[str, Residue], **__: Untyped) -> Mapping[str, Resource]:
        built.append(turns)
        if len(built) == TOOLS_A_TURN + 1:
            control._loaded = newer  # pyright: ignore[reportPrivateUsage]
        return {ROUTES: Resource(repr([each.expression for each in residues.values()]), b"")}

    monkeypatch.setattr("gateway.compiled.build_tool", build_tool)
    tool = tool_of("acme.support.v1.Tickets", "unix:/run/a.sock")
    names = [f"{tool.service}{each}" for each in range(MANY)]
    await found.post({name: tool_of(name, "unix:/run/a.sock") for name in names}, {})
    running = [asyncio.create_task(others()), asyncio.create_task(control.run(FakeClock()))]
    async with asyncio.timeout(60):
        async for catalog in shown.watch():
            if catalog.version:
                break
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

    assert len(set(built[:MANY])) == MANY // TOOLS_A_TURN
    assert len({resource.version for resource in publisher.published[0][ROUTES].values()}) == 1
