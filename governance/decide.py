"""The decision, as a pure function: (Residue, Caller) -> Decision."""

from __future__ import annotations

from collections.abc import Mapping

from governance.expression import EvaluationError, Expression, Value, evaluate
from governance.residue import SOMEBODY, Clause, Residue
from governance.words import Caller, Decision, Outcome

NOBODY = "no caller: the call carries no token that the mesh accepts"


def decide(residue: Residue, caller: Caller) -> Decision:
    """Whether the caller may call the method, and which rule says so.

    Of several rules that forbid, or permit, the first by id is named.
    """
    facts = _facts(caller)
    forbid = _first(residue.forbids, facts, on_error=True)
    if forbid is not None:
        return Decision(Outcome.DENY, forbid.rule, forbid.reason)
    if not _holds(SOMEBODY, facts, on_error=False):
        return Decision(Outcome.DENY, "", NOBODY)
    permit = _first(residue.permits, facts, on_error=False)
    if permit is None:
        return Decision(Outcome.DENY, "", no_rule_permits(residue))
    if residue.domain_permits is not None and _first(residue.domain_permits, facts, on_error=False) is None:
        return Decision(Outcome.DENY, "", no_rule_permits(residue))
    return Decision(Outcome.ALLOW, permit.rule, permit.reason)


def may_be_permitted(residue: Residue, caller: Caller) -> bool:
    """Whether some request of the caller's could be permitted; what is unknown counts as maybe.

    No rule reads the request yet, so this is the decision itself.
    """
    return decide(residue, caller).outcome is Outcome.ALLOW


def no_rule_permits(residue: Residue) -> str:
    """Why a call that no rule permits is refused: what the rules that could permit it ask for."""
    clauses = residue.permits if residue.domain_permits is None or not residue.permits else residue.domain_permits
    asked = "; ".join(f"{clause.reason} ({clause.rule})" for clause in clauses)
    return f"no rule permits: {asked}" if asked else "no rule permits"


def _first(clauses: tuple[Clause, ...], facts: Mapping[tuple[str, str], Value], *, on_error: bool) -> Clause | None:
    return next((clause for clause in clauses if _holds(clause.when, facts, on_error=on_error)), None)


def _holds(expression: Expression, facts: Mapping[tuple[str, str], Value], *, on_error: bool) -> bool:
    try:
        return bool(evaluate(expression, facts))
    except EvaluationError:
        return on_error


def _facts(caller: Caller) -> Mapping[tuple[str, str], Value]:
    return {
        ("caller", "issuer"): caller.issuer,
        ("caller", "subject"): caller.subject,
        ("caller", "roles"): caller.roles,
        ("caller", "domain"): caller.domain,
        ("caller", "clearances"): caller.clearances,
        ("caller", "actor"): caller.actor,
    }
