"""The decision, as a pure function: (Residue, Caller, Context) -> Decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from governance.expression import FALSE, TRUE, Const, EvaluationError, Expression, Value, evaluate, fields_of, fold
from governance.residue import SOMEBODY, Residue, clause
from governance.rule import Clause, Rule
from governance.words import Caller, Context, Decision, Outcome, Shadow, Tool

NOBODY = "no caller: the call carries no token that the mesh accepts"
# Nothing is known of how the call comes.
UNKNOWN = Context()

_Facts = Mapping[tuple[str, str], Value]


def decide(residue: Residue, caller: Caller, context: Context = UNKNOWN) -> Decision:
    """Whether the caller may call the method, and which rule says so.

    Of several rules that forbid, or permit, the first by id is named.
    """
    facts = {**_facts(caller), ("context", "address"): context.address}
    somebody = _holds(SOMEBODY, facts, on_error=False)
    forbid = _first(residue.forbids, facts, on_error=True)
    permit = _first(residue.permits, facts, on_error=False) if somebody else None
    own = residue.domain_permits is None or _first(residue.domain_permits, facts, on_error=False) is not None
    shadows = _shadows(residue, facts, open_to_caller=somebody and forbid is None, mesh=permit is not None, own=own)
    told = tuple(sorted(shadows, key=lambda shadow: shadow.rule))
    if forbid is not None:
        return Decision(Outcome.DENY, forbid.rule, forbid.reason, told)
    if not somebody:
        return Decision(Outcome.DENY, "", NOBODY, told)
    if permit is None or not own:
        return Decision(Outcome.DENY, "", no_rule_permits(residue), told)
    return Decision(Outcome.ALLOW, permit.rule, permit.reason, told)


def _shadows(residue: Residue, facts: _Facts, *, open_to_caller: bool, mesh: bool, own: bool) -> Iterator[Shadow]:
    """The shadow rules that hold.

    open_to_caller: whether a permit would do. mesh, own: whether a rule of the mesh permits, and the domain does.
    """
    for clauses, otherwise in ((residue.shadow_permits, own), (residue.shadow_domain_permits, mesh)):
        for each in clauses:
            if _holds(each.when, facts, on_error=False):
                yield Shadow(each.rule, Outcome.ALLOW if open_to_caller and otherwise else Outcome.DENY)
    for each in residue.shadow_forbids:
        if _holds(each.when, facts, on_error=True):
            yield Shadow(each.rule, Outcome.DENY)


def may_be_permitted(residue: Residue, caller: Caller) -> bool:
    """Whether some call of the caller's could be permitted; what is not known yet counts as maybe."""
    facts = _facts(caller)

    def may_hold(clauses: tuple[Clause, ...]) -> bool:
        return any(fold(each.when, facts, otherwise=False) != FALSE for each in clauses)

    return (
        bool(caller.subject)
        and may_hold(residue.permits)
        and not any(fold(each.when, facts, otherwise=True) == TRUE for each in residue.forbids)
        and (residue.domain_permits is None or may_hold(residue.domain_permits))
    )


def may_act(residue: Residue, tool: Caller) -> bool:
    """Whether a tool itself may make a call for a caller: asked before it is known where the call comes from.

    The caller is asked for when it is made. So a forbid that asks for the
    address alone is left to that, for it holds of both or of neither. A permit
    that asks for the address does not count, and a forbid that asks for who
    calls as well holds.
    """
    facts = _facts(tool)

    def permits(clauses: tuple[Clause, ...]) -> bool:
        return any(fold(each.when, facts, otherwise=False) == TRUE for each in clauses)

    def forbids(each: Clause) -> bool:
        left = fold(each.when, facts, otherwise=True)
        about_callers = any(field.root == "caller" for field in fields_of(each.when))
        return left == TRUE if isinstance(left, Const) else about_callers

    return (
        bool(tool.subject)
        and permits(residue.permits)
        and not any(map(forbids, residue.forbids))
        and (residue.domain_permits is None or permits(residue.domain_permits))
    )


def depends_on_context(residue: Residue, caller: Caller) -> bool:
    """Whether the outcome for a caller hangs on how the call comes."""
    return not isinstance(fold(residue.expression, _facts(caller), otherwise=False), Const)


def holds(rule: Rule, tool: Tool, caller: Caller, context: Context = UNKNOWN) -> bool:
    """Whether one rule, by itself, holds of a call. A forbid without a value does, a permit does not."""
    left = clause(rule, tool)
    facts = {**_facts(caller), ("context", "address"): context.address}
    return left is not None and _holds(left.when, facts, on_error=not rule.permit)


def foresee(residue: Residue, caller: Caller) -> Decision | None:
    """The decision on any call of the caller's; None where it hangs on how the call comes."""
    return None if depends_on_context(residue, caller) else decide(residue, caller)


def no_rule_permits(residue: Residue) -> str:
    """Why a call that no rule permits is refused: what the rules that could permit it ask for."""
    clauses = residue.permits if residue.domain_permits is None or not residue.permits else residue.domain_permits
    asked = "; ".join(f"{each.reason} ({each.rule})" for each in clauses)
    return f"no rule permits: {asked}" if asked else "no rule permits"


def _first(clauses: tuple[Clause, ...], facts: _Facts, *, on_error: bool) -> Clause | None:
    return next((each for each in clauses if _holds(each.when, facts, on_error=on_error)), None)


def _holds(expression: Expression, facts: _Facts, *, on_error: bool) -> bool:
    try:
        return bool(evaluate(expression, facts))
    except EvaluationError:
        return on_error


def _facts(caller: Caller) -> _Facts:
    return {
        ("caller", "issuer"): caller.issuer,
        ("caller", "subject"): caller.subject,
        ("caller", "roles"): caller.roles,
        ("caller", "domain"): caller.domain,
        ("caller", "clearances"): caller.clearances,
        ("caller", "actor"): caller.actor,
    }
