"""No mistake in what makes rules Envoy's goes unseen: each mutant makes a cell differ."""

from __future__ import annotations

import pytest

from tests.differential.compare import differences, told
from tests.differential.hunt import hunt
from tests.differential.mutants import OF_CALLERS, OF_GOVERNANCE, OF_RULES, Mutant
from tests.differential.mutate import in_force
from tests.differential.world import NO_FLOODS, SEED, world_of
from tests.envoy import mesh

AT_LEAST = 20
# As few as show every mistake.
GROUPS = 12


def test_there_are_enough_mutants_each_with_a_name_of_its_own() -> None:
    mutants = [*OF_RULES, *OF_CALLERS, *OF_GOVERNANCE]

    assert len(OF_RULES) >= AT_LEAST
    assert len({mutant.name for mutant in mutants}) == len(mutants)


async def test_envoy_with_any_mistake_of_the_compiler_is_found_out() -> None:
    world = world_of(SEED, GROUPS)
    async with mesh(limits=NO_FLOODS) as running:
        found = await hunt(running, world, world.cells())
        # And it is the mistakes that are found.
        await running.publish_resources(world.resources(world.tools(running.backend.address)))
        found_without = await differences(running, [cell for cells in found.values() for cell in cells])

    assert [name for name, cells in found.items() if not cells] == []
    assert told(SEED, found_without) == ""


@pytest.mark.parametrize("mutant", OF_GOVERNANCE, ids=lambda mutant: mutant.name)
def test_a_mistake_in_governance_is_found_out_by_the_policy_files(mutant: Mutant) -> None:
    with in_force(mutant):
        # Nothing that was made without the mistake.
        cells = world_of(SEED, GROUPS).cells()
        found = next((cell for cell in cells if cell.disagreement()), None)

    assert found is not None
