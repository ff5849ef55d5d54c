"""A world made from a seed: issuers, callers, tools and their policies; and the cells where they meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from gateway.snapshot.build import Policy, Resource, Resources, assemble, build_tool, residues
from governance.bundle import parse_bundle
from governance.issuers import Issuers
from llmesh.mesh_file import LimitSettings
from tests.differential.believed import believed, keys
from tests.differential.cells import Cell
from tests.differential.delegated import Delegated, delegated
from tests.differential.places import Group, chosen, everybody, group_of
from tests.differential.rules import Texts
from tests.differential.shown import Shown, chosen_tokens, not_believed, shown_by_chance
from tests.envoy import KEYS

# Another seed makes another world.
SEED = int(os.environ.get("LLMESH_SEED", "20261122"))
# Tokens that are not believed would soon be looked at no more.
NO_FLOODS = LimitSettings(refused_tokens_per_s=0)
GROUPS = 40
BY_CHANCE = 80
# Those of them for whom a tool calls too.
ACTING = 20
CALLERS_OF_A_PLACE = 24
Built = Mapping[str, Mapping[str, Resource]]
NO_BUNDLE = parse_bundle("version: 1", {})


@dataclass(frozen=True, eq=False)
class World:
    """Equal seeds make equal worlds."""

    seed: int
    issuers: Issuers
    groups: tuple[Group, ...]
    shown: tuple[Shown | Delegated, ...]

    def tools(self, address: str) -> Built:
        """The resources of every tool, each under its own group's policy. address: of who answers for them."""
        return {
            tool.service: build_tool(tool, residues(tool, group.texts.bundle))
            for group in self.groups
            for tool in group.served(address)
        }

    def resources(self, tools: Built) -> Resources:
        """The snapshot: tools, and the issuers."""
        return assemble(tools, Policy(NO_BUNDLE, self.issuers, keys(), KEYS.path))

    def under(self, texts: Callable[[Group], Texts]) -> World:
        """The same world with other policy files."""
        return replace(self, groups=tuple(group.under(texts(group)) for group in self.groups))

    def mirror(self) -> Sequence[Cell]:
        """Everybody at the mirror, which shows what each is."""
        return [Cell(place, shown, self.issuers) for place in self.groups[0].places for shown in self.shown]

    def cells(self) -> Sequence[Cell]:
        """Everybody at the mirror, and some of them at every other place, in no special order."""
        seed = Random(self.seed)  # noqa: S311 - for a table, not for a key
        places = [place for group in self.groups[1:] for place in group.places]
        met = [
            Cell(place, shown, self.issuers)
            for place in places
            for shown in seed.sample(self.shown, CALLERS_OF_A_PLACE)
        ]
        seed.shuffle(met)
        return [*self.mirror(), *met]


def world_of(seed: int, groups: int = GROUPS) -> World:
    """The world of a seed. groups: how many there are by chance, beside those that are always there."""
    chance = Random(seed)  # noqa: S311 - for a table, not for a key
    issuers = believed(chance)
    made = (everybody(), *chosen(), *(group_of(chance, index) for index in range(groups)))
    by_chance = shown_by_chance(chance, BY_CHANCE)
    acting = delegated(chance, (shown.caller(issuers) for shown in by_chance[:ACTING]))
    return World(seed, issuers, made, (*chosen_tokens(), *by_chance, *not_believed(), *acting))
