"""Residue: what is left of the bundle for one method once its tool is known.

The one form between policy and Envoy: decide.py interprets it, the gateway's
snapshot compiles it. The rule of the whole:

    permitted = a mesh rule permits AND no mesh rule forbids
                AND no rule of the tool's domain forbids
                AND (the domain inherits OR one of its rules permits)

Every term of a domain is a conjunct, so a domain can only narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from governance.bundle import Bundle, Rule
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
from governance.words import Tool

# Nothing is permitted to nobody.
SOMEBODY: Expression = Call("_!=_", (Field("caller", "subject"), Const("")))


@dataclass(frozen=True, slots=True)
class Clause:
    """What is left of one rule: an expression over the caller alone, never constantly false."""

    rule: str
    reason: str
    when: Expression


@dataclass(frozen=True, slots=True)
class Residue:
    """The rules that bear on one method, each kind in order of rule ids.

    domain_permits: None where the domain inherits.
    """

    tool: Tool
    permits: tuple[Clause, ...]
    forbids: tuple[Clause, ...]
    domain_permits: tuple[Clause, ...] | None

    @property
    def expression(self) -> Expression:
        """The whole as one total boolean over the caller."""
        domain = TRUE if self.domain_permits is None else any_of(*(clause.when for clause in self.domain_permits))
        return all_of(
            SOMEBODY,
            any_of(*(clause.when for clause in self.permits)),
            *(negation(clause.when) for clause in self.forbids),
            domain,
        )


def specialise(bundle: Bundle, tool: Tool) -> Residue:
    """The residue of a bundle for one method. Pure; equal inputs give equal residues."""
    facts = _facts(tool)
    domain = bundle.domains.get(tool.domain)
    own = () if domain is None else domain.rules
    return Residue(
        tool,
        permits=_clauses((rule for rule in bundle.mesh if rule.permit), tool, facts),
        forbids=_clauses((rule for rule in (*own, *bundle.mesh) if not rule.permit), tool, facts),
        domain_permits=None
        if domain is None or domain.inherit
        else _clauses((rule for rule in own if rule.permit), tool, facts),
    )


def _clauses(rules: Iterable[Rule], tool: Tool, facts: Mapping[tuple[str, str], Value]) -> tuple[Clause, ...]:
    # Fail closed: a permit without a value permits nothing, a forbid without one forbids.
    clauses = (
        Clause(rule.id, rule.reason, fold(rule.when, facts, otherwise=not rule.permit))
        for rule in rules
        if _bears_on(rule, tool)
    )
    return tuple(sorted((clause for clause in clauses if clause.when != FALSE), key=lambda clause: clause.rule))


def _bears_on(rule: Rule, tool: Tool) -> bool:
    applies = rule.applies
    return (
        (not applies.domains or tool.domain in applies.domains)
        and (not applies.services or tool.service in applies.services)
        and (not applies.methods or tool.method in applies.methods)
        and (not applies.effects or tool.effect in applies.effects)
    )


def _facts(tool: Tool) -> Mapping[tuple[str, str], Value]:
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
