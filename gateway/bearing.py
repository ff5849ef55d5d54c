"""The filter of the blocks as Envoy is to have it: made again only when something that it is made of has changed.

What a hidden tool's rules make it of is told alone: where that fails, or
Envoy refuses it, the tool is stopped for everybody and its reason told to
nobody, and all other blocks are in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from gateway.blocks.words import Block, Target
from gateway.catalog import Tool
from gateway.snapshot.blocks import Surroundings
from gateway.snapshot.build import NOTHING_BLOCKED, Resource, build_blocks
from gateway.snapshot.predicate import predicate
from governance.expression import Expression
from governance.residue import Residue

__all__ = ["Bearing"]

log = logging.getLogger(__name__)

Residues = Callable[[Tool], Mapping[str, Residue]]


class Bearing:
    """Makes the filter."""

    def __init__(self, residues: Residues) -> None:
        """residues: of a tool, by method, under the policy in force."""
        self._residues = residues
        self._made: tuple[Mapping[Target, Block], Surroundings, Resource] | None = None
        self._hushed = False

    def resource(
        self, in_force: Mapping[Target, Block], tools: Mapping[str, Tool], packages: Mapping[str, str]
    ) -> Resource:
        """The filter that stops what is blocked. tools: on the mesh. packages: package -> domain."""
        if not in_force:
            self._made = None
            return NOTHING_BLOCKED
        services = {target.service for target in in_force} & tools.keys()
        surroundings = Surroundings(
            packages,
            frozenset(service for service in services if not tools[service].sheet.hidden),
            {service: self._permitted(tools[service]) for service in services if tools[service].sheet.hidden},
        )
        if self._made is None or self._made[0] is not in_force or self._made[1] != surroundings:
            self._made = (in_force, surroundings, build_blocks(in_force.values(), surroundings))
            self._hushed = False
        return self._made[2]

    def hush(self) -> bool:
        """Tell nobody why hidden tools are stopped, until something changes: for Envoy refuses what was made.

        False where it holds nothing of their rules, or no longer: there is nothing else to be made.
        """
        if self._made is None or self._hushed or not any(self._made[1].hidden.values()):
            return False
        in_force, surroundings, _ = self._made
        log.error("reasons of blocks not told for hidden tools", extra={"services": sorted(surroundings.hidden)})
        hushed = build_blocks(in_force.values(), replace(surroundings, hidden={}))
        self._made, self._hushed = (in_force, surroundings, hushed), True
        return True

    def _permitted(self, tool: Tool) -> Mapping[str, Expression]:
        """Whom the rules permit, by method; of no method where that cannot be made Envoy's."""
        try:
            found = {name: residue.expression for name, residue in self._residues(tool).items()}
            for expression in found.values():
                predicate(expression)
        except Exception:
            # Whatever it is about this tool, the other blocks are to be in force.
            log.exception("reasons of blocks not told for a hidden tool", extra={"service": tool.service})
            return {}
        return found
