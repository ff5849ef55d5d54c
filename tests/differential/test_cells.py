"""The real Envoy decides as governance does, and governance as the policy files say: thousands of cells, all equal.

The world is made from a seed: LLMESH_SEED chooses another than the usual one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence

import pytest

from tests.differential.cells import Cell
from tests.differential.compare import answers, differences, told
from tests.differential.reasons import without_reasons
from tests.differential.world import NO_FLOODS, SEED, World, world_of
from tests.envoy import Mesh, mesh

CELLS = 5000


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh(limits=NO_FLOODS) as made:
        yield made


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(SEED)


def test_equal_seeds_make_equal_worlds(world: World) -> None:
    again = world_of(SEED)

    assert [str(group.texts) for group in again.groups] == [str(group.texts) for group in world.groups]
    assert [shown.claims for shown in again.shown] == [shown.claims for shown in world.shown]
    assert [(cell.path, cell.shown.name) for cell in again.cells()] == [
        (cell.path, cell.shown.name) for cell in world.cells()
    ]


def test_a_decision_is_what_the_policy_files_say_by_cel_alone(world: World) -> None:
    wrong = [(cell, cell.disagreement()) for cell in world.cells()]

    assert told(SEED, [each for each in wrong if each[1]]) == ""


async def test_envoy_decides_and_derives_as_governance_does(running: Mesh, world: World) -> None:
    cells = world.cells()
    assert len(cells) >= CELLS
    assert_all_kinds(cells)
    await running.publish_resources(world.resources(world.tools(running.backend.address)))
    assert running.refused == []

    assert told(SEED, await differences(running, cells)) == ""


def assert_all_kinds(cells: Sequence[Cell]) -> None:
    """The cells hold many of each outcome, lest they agree on one alone."""
    kinds = Counter((cell.code, bool(cell.decision.rule)) for cell in cells if cell.shown.good)
    assert len(kinds) == 5, kinds
    assert min(kinds.values()) >= 10, kinds


async def test_reasons_decide_nothing(running: Mesh, world: World) -> None:
    resources = world.resources(world.tools(running.backend.address))
    await running.publish_resources(without_reasons(resources))

    answered = await answers(running, world.cells()[:1000])

    assert [str(cell) for cell, answer in answered if answer.code is not cell.code and not cell.place.tool.hidden] == []
