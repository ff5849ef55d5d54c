"""A decision taken apart: every rule that could bear on a call, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from governance.bundle import Bundle
from governance.decide import UNKNOWN, holds
from governance.expression import TRUE
from governance.residue import clause
from governance.rule import Rule
from governance.words import Caller, Context, Tool
from governance.written import written

EVERYWHERE = "always"


@dataclass(frozen=True, slots=True)
class Said:
    """What one rule says. left: what the tool leaves of its condition, in CEL; empty where it can never hold.

    holds: of the call asked about; None where none was.
    """

    rule: str
    effect: str
    mode: str
    left: str
    holds: bool | None
    reason: str
    enforced: str


def explain(bundle: Bundle, tool: Tool, caller: Caller, context: Context = UNKNOWN) -> tuple[Said, ...]:
    """Every rule of the mesh and of the tool's domain, with its value for a call."""
    return tuple(_said(rule, tool, holds=holds(rule, tool, caller, context)) for rule in _rules(bundle, tool))


def show(bundle: Bundle, tool: Tool) -> tuple[Said, ...]:
    """Every rule that bears on a method, with what is left of it."""
    return tuple(said for rule in _rules(bundle, tool) if (said := _said(rule, tool, holds=None)).left)


def _rules(bundle: Bundle, tool: Tool) -> Iterator[Rule]:
    """Those that are asked, in turn: what forbids, what the mesh permits, what the domain does."""
    domain = bundle.domains.get(tool.domain)
    own = () if domain is None else tuple(domain.rules)
    yield from (rule for rule in (*own, *bundle.mesh) if not rule.permit)
    yield from (rule for rule in bundle.mesh if rule.permit)
    yield from (rule for rule in own if rule.permit)


def _said(rule: Rule, tool: Tool, *, holds: bool | None) -> Said:
    left = clause(rule, tool)
    text = "" if left is None else EVERYWHERE if left.when == TRUE else written(left.when)
    return Said(
        rule.id,
        "permit" if rule.permit else "forbid",
        "shadow" if rule.shadow else "enforce",
        text,
        holds,
        rule.reason,
        _where(rule),
    )


def _where(rule: Rule) -> str:
    if rule.shadow:
        return "nowhere; told in decision records"
    return "Envoy, in the method's permit" + ("" if rule.permit else ", with a reason of its own")
