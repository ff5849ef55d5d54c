"""What is wrong with rules that can be read: untested, failing, dead, shadowed, twice there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from governance.bundle import Bundle
from governance.expression import FALSE, TRUE, Call, Expression, fold
from governance.ownership import PLATFORM, Ownership, is_platform
from governance.residue import clause
from governance.rule import Applies, Rule
from governance.trial import Trial, domain_of, every_rule
from governance.words import Outcome, Tool


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one rule. fails: whether it is a mistake, or only to be known."""

    rule: str
    kind: str
    text: str
    fails: bool = True


def check(
    bundle: Bundle, trials: Sequence[Trial], contracts: Mapping[str, Tool], ownership: Ownership | None = None
) -> Iterator[Finding]:
    """Everything found, in order of the rules' ids. contracts: none if none are known."""
    rules = list(every_rule(bundle))
    for rule in rules:
        own = [trial for trial in trials if trial.rule == rule.id]
        yield from (Finding(rule.id, "failing", f"test {trial.number}: {trial.fault}") for trial in own if trial.fault)
        yield from _untested(rule, own)
        dead = _why_dead(rule, bundle, ownership)
        if dead:
            yield Finding(rule.id, "dead", dead)
        elif contracts and not any(clause(rule, tool) for tool in contracts.values()):
            yield Finding(rule.id, "unused", "it bears on no method of these contracts", fails=False)
        yield from _needless(rule, rules)


def _untested(rule: Rule, trials: Iterable[Trial]) -> Iterator[Finding]:
    """A rule is tested by a call that it makes what it becomes, and by one that it leaves alone."""
    passed = {(trial.test.expect, trial.held) for trial in trials if not trial.fault}
    for expect in (Outcome.ALLOW, Outcome.DENY):
        held = rule.permit is (expect is Outcome.ALLOW)
        if (expect, held) not in passed:
            does = "holds" if held else "does not hold"
            yield Finding(rule.id, "untested", f"no test expects {expect.value} of a call of which the rule {does}")


def _why_dead(rule: Rule, bundle: Bundle, ownership: Ownership | None) -> str:
    """Why a rule can never bear on anything; empty if it may."""
    if fold(rule.when, {}, otherwise=not rule.permit) == FALSE:
        return "its condition never holds"
    own = domain_of(rule.id)
    if not own:
        return ""
    if rule.permit and bundle.domains[own].inherit:
        return "a domain's permits decide nothing where it says `default: inherit`"
    if rule.applies.domains and own not in rule.applies.domains:
        return f"a rule of the domain {own} bears on that domain's tools alone"
    if ownership and rule.applies.services:
        owners = {_owner(service, ownership) for service in rule.applies.services}
        if own not in owners:
            return f"a rule of the domain {own} bears on that domain's tools alone"
    return ""


def _owner(service: str, ownership: Ownership) -> str | None:
    return PLATFORM if is_platform(service) else ownership.owner_of(service)


def _needless(rule: Rule, rules: Iterable[Rule]) -> Iterator[Finding]:
    """The rule adds nothing to another: found by what is written, so not always."""
    for other in rules:
        if other is rule or other.permit is not rule.permit or other.shadow or not _same_tier(rule, other):
            continue
        if _covers(other, rule):
            both = _covers(rule, other) and _same_tier(other, rule) and not rule.shadow
            if both and rule.id > other.id:
                yield Finding(rule.id, "duplicate", f"it says what {other.id} says")
            elif not both:
                yield Finding(rule.id, "shadowed", f"wherever it holds, {other.id} does")


def _same_tier(rule: Rule, other: Rule) -> bool:
    """Whether what the other does, where it holds, makes the rule needless: a permit of the mesh opens no domain."""
    own, of_other = domain_of(rule.id), domain_of(other.id)
    return own == of_other or (not rule.permit and not of_other)


def _covers(other: Rule, rule: Rule) -> bool:
    wanted = _conjuncts(rule.when)
    return _wider(other.applies, rule.applies) and all(part in wanted for part in _conjuncts(other.when))


def _wider(other: Applies, applies: Applies) -> bool:
    pairs = (
        (other.domains, applies.domains),
        (other.services, applies.services),
        (other.methods, applies.methods),
        (other.effects, applies.effects),
        (other.roles, applies.roles),
    )
    return all(not wide or (narrow and narrow <= wide) for wide, narrow in pairs)


def _conjuncts(expression: Expression) -> list[Expression]:
    match expression:
        case Call("_&&_", (left, right)):
            return [*_conjuncts(left), *_conjuncts(right)]
        case _:
            return [] if expression == TRUE else [expression]
