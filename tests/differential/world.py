"""A world made from a seed: issuers, callers, tools and their policies; and the cells where they meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from gateway.snapshot.build import Policy, Resource, Resources, assemble, build_tool, residues
from governance.bundle import parse_bundle
from governance.issuers import Issuers
from tests.differential.believed import believed, keys
from tests.differential.cells import Cell
from tests.differential.places import Group, everybody, group_of
from tests.differential.shown import Shown, chosen, not_believed, shown_by_chance

GROUPS = 60
BY_CHANCE = 80
CALLERS_OF_A_PLACE = 28
NO_BUNDLE = parse_bundle("version: 1", {})


@dataclass(frozen=True, eq=False)
class World:
    """Equal seeds make equal worlds."""

    seed: int
    issuers: Issuers
    groups: tuple[Group, ...]
    shown: tuple[Shown, ...]

    def resources(self, address: str, groups: Iterable[Group] | None = None) -> Resources:
        """The snapshot of it all, each tool under its own group's policy. address: of who answers for the tools."""
        built: dict[str, dict[str, Resource]] = {}
        for group in self.groups if groups is None else groups:
            for tool in group.served(address):
                built[tool.service] = dict(build_tool(tool, residues(tool, group.texts.bundle)))
        return assemble(built, Policy(NO_BUNDLE, self.issuers, keys()))

    def cells(self) -> Sequence[Cell]:
        """Where they meet: everybody at the mirror, and some of them at every other place. In no special order."""
        seed = Random(self.seed)  # noqa: S311 - for a table, not for a key
        met = [*self._cells(seed)]
        seed.shuffle(met)
        return met

    def _cells(self, seed: Random) -> Iterator[Cell]:
        mirror, *groups = self.groups
        yield from (Cell(place, shown, self.issuers) for place in mirror.places for shown in self.shown)
        for group in groups:
            for place in group.places:
                yield from (Cell(place, shown, self.issuers) for shown in seed.sample(self.shown, CALLERS_OF_A_PLACE))


def world_of(seed: int) -> World:
    """The world of a seed."""
    chance = Random(seed)  # noqa: S311 - for a table, not for a key
    issuers = believed(chance)
    groups = (everybody(), *(group_of(chance, index) for index in range(GROUPS)))
    return World(seed, issuers, groups, (*chosen(), *shown_by_chance(chance, BY_CHANCE), *not_believed()))
