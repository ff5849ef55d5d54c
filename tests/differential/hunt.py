"""The hunt for mutants: each in turn in the real Envoy, and the cells that find it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.differential.cells import Cell
from tests.differential.compare import differing
from tests.differential.mutants import OF_CALLERS, OF_RULES, Mutant
from tests.differential.mutate import in_force
from tests.differential.world import Built, World
from tests.envoy import Mesh


async def hunt(running: Mesh, world: World, cells: Sequence[Cell]) -> Mapping[str, Sequence[Cell]]:
    """Mutant's name -> cells that differ; none for one that is not found out."""
    for cell in cells:
        # As governance decides without a mistake.
        assert cell.decision
    tools = world.tools(running.backend.address)
    found = {mutant.name: await _found(mutant, running, world, cells) for mutant in OF_RULES}
    return found | {mutant.name: await _found(mutant, running, world, cells, tools=tools) for mutant in OF_CALLERS}


async def _found(
    mutant: Mutant, running: Mesh, world: World, cells: Sequence[Cell], *, tools: Built | None = None
) -> Sequence[Cell]:
    """tools: what they are without a mistake; None for those with the mutant's."""
    with in_force(mutant):
        resources = world.resources(tools or world.tools(running.backend.address))
    await running.publish_resources(resources)
    assert running.refused == [], mutant.name
    return await differing(running, cells)
