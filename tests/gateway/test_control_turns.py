"""The turns that many tools take: of a policy that changes for them, and of an Envoy that takes them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any as Untyped

import pytest

from gateway.catalog import CatalogBoard, Tool
from gateway.compiled import TOOLS_A_TURN
from gateway.control import SHOW_AFTER_S, Control
from gateway.snapshot.build import ROUTES, Resource, Resources
from gateway.xds.publish import Publisher as RealPublisher
from governance.residue import Residue
from tests.envoy import KEYS, READS, tool_of
from tests.gateway.fakes import FakeClock
from tests.gateway.policy_files import Folder

MANY = 4 * TOOLS_A_TURN


class Publisher:
    """Holds what is published, all of which Envoy has at once."""

    def __init__(self) -> None:
        self.streams = 0
        self.published: list[Resources] = []
        self.refused_names: Mapping[str, bool] = {}

    async def publish(self, resources: Resources, **_: object) -> None:
        self.published.append(resources)

    async def revisions(self) -> AsyncGenerator[int]:
        yield 0
        await asyncio.Event().wait()

    async def settled(self, *, silent_s: float) -> bool:
        assert silent_s
        return True

    async def caught_up(self, *, within_s: float) -> bool:
        assert within_s
        return True


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


@pytest.mark.parametrize("answers", [True, False], ids=["answering", "silent"])
async def test_a_catalog_is_not_shown_while_envoy_still_works_at_it(tmp_path: Path, *, answers: bool) -> None:
    folder, found, shown = Folder.make(tmp_path), CatalogBoard(), CatalogBoard()
    publisher = RealPublisher(on_refused=lambda _name, _words: None, on_accepted=lambda _name: None)
    control = Control(found, shown, publisher, folder.files(), (), keys=KEYS)
    publisher.streams = 0 if answers else 1
    tool = tool_of("acme.support.v1.Tickets", "unix:/run/a.sock")
    await found.post({tool.service: tool}, {})
    running, loop = asyncio.create_task(control.run(FakeClock())), asyncio.get_running_loop()

    ends_s = loop.time() + 2 * SHOW_AFTER_S
    while loop.time() < ends_s:
        if answers:
            await publisher.accepted(ROUTES, {})
        await asyncio.sleep(0.01)
    assert not shown.current.version

    await publisher.served(publisher.revision)
    async with asyncio.timeout(60):
        async for catalog in shown.watch():
            if catalog.version:
                assert catalog.tools == {tool.service: tool}
                break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
