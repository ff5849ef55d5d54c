"""What the blocks in force bear on, as the snapshot needs it: made again only when something of it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.blocks.words import Block, Target
from gateway.catalog import Tool
from gateway.snapshot.blocks import Surroundings
from gateway.snapshot.build import NOTHING_BLOCKED, Resource, build_blocks
from governance.expression import Expression
from governance.residue import Residue

__all__ = ["Bearing"]

Residues = Callable[[Tool], Mapping[str, Residue]]


class Bearing:
    """Makes the filter of the blocks."""

    def __init__(self, residues: Residues) -> None:
        """residues: of a tool, by method, under the policy in force."""
        self._residues = residues
        self._made: tuple[Mapping[Target, Block], Surroundings, Resource] | None = None

    def resource(
        self, in_force: Mapping[Target, Block], tools: Mapping[str, Tool], packages: Mapping[str, str]
    ) -> Resource:
        """The filter that stops what is blocked. tools: on the mesh. packages: package -> domain."""
        if not in_force:
            return NOTHING_BLOCKED
        services = {target.service for target in in_force} & tools.keys()
        surroundings = Surroundings(
            packages,
            frozenset(service for service in services if not tools[service].sheet.hidden),
            {service: self._permitted(tools[service]) for service in services if tools[service].sheet.hidden},
        )
        if self._made is None or self._made[0] is not in_force or self._made[1] != surroundings:
            self._made = (in_force, surroundings, build_blocks(in_force.values(), surroundings))
        return self._made[2]

    def _permitted(self, tool: Tool) -> Mapping[str, Expression]:
        return {name: residue.expression for name, residue in self._residues(tool).items()}
