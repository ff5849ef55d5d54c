"""What differs between two bundles, so that only what it bears on is folded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from governance.bundle import Bundle, Domain
from governance.rule import Rules
from governance.words import Tool

__all__ = ["Edit", "edit"]

NONE = Rules()


@dataclass(frozen=True, slots=True)
class Edit:
    """Rules that one of two bundles has and the other lacks: the mesh's, and each domain's.

    switched: domains of which more than rules differs, on all of whose tools that bears.
    """

    mesh: Rules
    domains: Mapping[str, Rules]
    switched: frozenset[str]

    def bears_on(self, tool: Tool) -> bool:
        """Whether the residues of a method under the two bundles can differ."""
        return (
            tool.domain in self.switched
            or any(self.mesh.bearing_on(tool))
            or any(self.domains.get(tool.domain, NONE).bearing_on(tool))
        )


def edit(before: Bundle, after: Bundle) -> Edit:
    """What differs. Rules are told apart as objects: parse_bundle gives those that were not edited again."""
    names = before.domains.keys() | after.domains.keys()
    pairs = {name: (before.domains.get(name), after.domains.get(name)) for name in names}
    return Edit(
        _differing(before.mesh, after.mesh),
        {name: _differing(_rules(old), _rules(new)) for name, (old, new) in pairs.items()},
        frozenset(
            name for name, (old, new) in pairs.items() if old is None or new is None or old.inherit != new.inherit
        ),
    )


def _rules(domain: Domain | None) -> Rules:
    return NONE if domain is None else domain.rules


def _differing(before: Rules, after: Rules) -> Rules:
    either = {id(rule): rule for rules in (before, after) for rule in rules}
    return Rules(tuple(either[key] for key in set(map(id, before)) ^ set(map(id, after))))
