"""Residue: what is left of the bundle for one method once its tool is known.

The one form between policy and Envoy: decide.py interprets it, the gateway's
snapshot compiles it. The rule of the whole:

    permitted = a mesh rule permits AND no mesh rule forbids
                AND no rule of the tool's domain forbids
                AND (the domain inherits OR one of its rules permits)

Every term of a domain is a conjunct, so a domain can only narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from governance.bundle import Bundle
from governance.expression import (
    FALSE,
    TRUE,
    Call,
    Const,
    Expression,
    Field,
    Value,
    all_of,
    any_of,
    fold,
    negation,
)
from governance.rule import Clause, Rule
from governance.words import Tool

# Clauses kept of one rule: it may read what each tool has for itself. And wholes that are kept of all residues.
MAX_KEPT = 4096
# Nothing is permitted to nobody.
SOMEBODY: Expression = Call("_!=_", (Field("caller", "subject"), Const("")))


@dataclass(frozen=True, slots=True)
class Residue:
    """The rules that bear on one method, each kind in order of rule ids.

    domain_permits: None where the domain inherits. shadow_*: those that decide
    nothing; `expression` is without them.
    """

    tool: Tool
    permits: tuple[Clause, ...]
    forbids: tuple[Clause, ...]
    domain_permits: tuple[Clause, ...] | None
    shadow_permits: tuple[Clause, ...] = ()
    shadow_forbids: tuple[Clause, ...] = ()
    shadow_domain_permits: tuple[Clause, ...] = ()

    @property
    def expression(self) -> Expression:
        """The whole as one total boolean over caller and context."""
        return _total(self.permits, self.forbids, self.domain_permits)


@lru_cache(maxsize=MAX_KEPT)
def _total(
    permits: tuple[Clause, ...], forbids: tuple[Clause, ...], domain_permits: tuple[Clause, ...] | None
) -> Expression:
    domain = TRUE if domain_permits is None else any_of(*(clause.when for clause in domain_permits))
    return all_of(
        SOMEBODY,
        any_of(*(clause.when for clause in permits)),
        *(negation(clause.when) for clause in forbids),
        domain,
    )


def specialise(bundle: Bundle, tool: Tool) -> Residue:
    """The residue of a bundle for one method. Pure; equal inputs give equal residues."""
    facts = facts_of(tool)
    domain = bundle.domains.get(tool.domain)
    mesh = tuple(bundle.mesh.bearing_on(tool))
    own = () if domain is None else tuple(domain.rules.bearing_on(tool))

    def clauses(rules: Iterable[Rule], *, permit: bool, shadow: bool = False) -> tuple[Clause, ...]:
        wanted = (_clause_of(rule, facts) for rule in rules if rule.permit is permit and rule.shadow is shadow)
        return tuple(sorted((clause for clause in wanted if clause), key=lambda clause: clause.rule))

    return Residue(
        tool,
        permits=clauses(mesh, permit=True),
        forbids=clauses((*own, *mesh), permit=False),
        domain_permits=None if domain is None or domain.inherit else clauses(own, permit=True),
        shadow_permits=clauses(mesh, permit=True, shadow=True),
        shadow_forbids=clauses((*own, *mesh), permit=False, shadow=True),
        shadow_domain_permits=clauses(own, permit=True, shadow=True),
    )


def clause(rule: Rule, tool: Tool) -> Clause | None:
    """What is left of one rule for a method; None if it does not apply to it, or can never hold."""
    return _clause_of(rule, facts_of(tool)) if rule.applies.bears_on(tool) else None


def _clause_of(rule: Rule, facts: Mapping[tuple[str, str], Value]) -> Clause | None:
    """What is left of a rule, made once for all tools with the same facts; None if it can never hold."""
    key = tuple(_hashable(facts["tool", name]) for name in rule.reads)
    if key not in rule.clauses:
        if len(rule.clauses) >= MAX_KEPT:
            rule.clauses.clear()
        # Fail closed: a permit without a value permits nothing, a forbid without one forbids.
        left = fold(rule.when, facts, otherwise=not rule.permit)
        when = all_of(_has_role(rule.applies.roles), left)
        rule.clauses[key] = None if when == FALSE else Clause(rule.id, rule.reason, when)
    return rule.clauses[key]


def _hashable(value: Value) -> Hashable:
    return frozenset(value.items()) if isinstance(value, Mapping) else value


def _has_role(roles: frozenset[str]) -> Expression:
    own = Field("caller", "roles")
    return any_of(*(Call("@in", (Const(role), own)) for role in sorted(roles))) if roles else TRUE


def facts_of(tool: Tool) -> Mapping[tuple[str, str], Value]:
    """What expressions may read of a method, each by its root and name."""
    return {
        ("tool", "service"): tool.service,
        ("tool", "method"): tool.method,
        ("tool", "domain"): tool.domain,
        ("tool", "effect"): tool.effect,
        ("tool", "stage"): tool.stage,
        ("tool", "data_classes"): tool.data_classes,
        ("tool", "unclassified"): tool.unclassified,
        ("tool", "hidden"): tool.hidden,
        ("tool", "needs_approval"): tool.needs_approval,
        ("tool", "cost"): tool.cost,
        ("tool", "labels"): tool.labels,
    }
