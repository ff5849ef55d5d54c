"""Whatever a domain writes, nobody may do more than the mesh's own rules permit: seen in the real Envoy."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import grpc

from tests.differential.cells import Cell
from tests.differential.compare import answers
from tests.differential.places import Group
from tests.differential.rules import Texts, domain_files
from tests.differential.world import NO_FLOODS, SEED, World, world_of
from tests.envoy import Mesh, mesh

GROUPS = 20
CELLS = 500
EDITS = 2


def without_domains(group: Group) -> Texts:
    return Texts(group.texts.mesh)


async def allowed(running: Mesh, world: World, cells: Sequence[Cell]) -> set[tuple[str, str]]:
    """The cells that Envoy lets through under a world's policies."""
    await running.publish_resources(world.resources(world.tools(running.backend.address)))
    assert running.refused == []
    answered = await answers(running, cells)
    return {(cell.path, cell.shown.name) for cell, answer in answered if answer.code is grpc.StatusCode.OK}


async def test_no_file_of_a_domain_turns_a_deny_into_an_allow() -> None:
    world, seed = world_of(SEED, GROUPS), Random(SEED)  # noqa: S311 - for a table, not for a key
    cells = world.cells()[-CELLS:]
    async with mesh(limits=NO_FLOODS) as running:
        by_the_mesh = await allowed(running, world.under(without_domains), cells)
        narrowed = [await allowed(running, world, cells)]
        for _ in range(EDITS):
            edited = world.under(lambda group: Texts(group.texts.mesh, domain_files(seed, [])))
            narrowed.append(await allowed(running, edited, cells))

    assert by_the_mesh
    assert all(found < by_the_mesh for found in narrowed), [found - by_the_mesh for found in narrowed]
