from __future__ import annotations

from dataclasses import replace

import pytest

from governance.bundle import parse_bundle
from governance.decide import NOBODY, decide, depends_on_context, may_act, may_be_permitted
from governance.expression import TRUE, Call, Const
from governance.residue import Residue, specialise
from governance.rule import Clause
from governance.words import Caller, Context, Outcome
from tests.governance.rules import READ, SAM, domain, mesh, rule

ALL = rule("all", "permit")


def decided(*rules: str, files: dict[str, str] | None = None, caller: Caller = SAM) -> tuple[str, str, str]:
    decision = decide(specialise(parse_bundle(mesh(*rules), files or {}), READ), caller)
    return decision.outcome.value, decision.rule, decision.reason


def test_nothing_is_permitted_without_a_rule() -> None:
    assert decided() == ("deny", "", "no rule permits")


def test_nobody_is_refused_whatever_the_rules_say() -> None:
    everything = Caller("dev", "", ("editor",), "support", ("pii",), "actor")

    assert decided(ALL, caller=everything) == ("deny", "", NOBODY)


def test_a_permit_is_named() -> None:
    assert decided(ALL) == ("allow", "mesh/all", "because all")


def test_a_forbid_beats_every_permit() -> None:
    assert decided(ALL, rule("never", "forbid", "caller.domain == 'support'")) == (
        "deny",
        "mesh/never",
        "because never",
    )


def test_a_forbid_that_does_not_hold_forbids_nothing() -> None:
    assert decided(ALL, rule("never", "forbid", "caller.domain == 'sales'"))[0] == "allow"


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_of_several_rules_the_first_by_id_is_named(effect: str) -> None:
    rules = [rule(name, effect, "caller.domain == 'support'") for name in ("c", "a", "b")]

    assert decided(*([] if effect == "permit" else [ALL]), *rules)[1] == "mesh/a"


def test_a_condition_that_has_no_value_forbids_and_never_permits() -> None:
    failing = Clause("mesh/failing", "cannot be told", Call("_[_]", (Const("text"), Const("key"))))
    fine = Clause("mesh/fine", "fine", TRUE)

    forbidden = decide(Residue(READ, permits=(fine,), forbids=(failing,), domain_permits=None), SAM)
    unpermitted = decide(Residue(READ, permits=(failing,), forbids=(), domain_permits=None), SAM)
    narrowed = decide(Residue(READ, permits=(fine,), forbids=(), domain_permits=(failing,)), SAM)

    assert (forbidden.outcome, forbidden.rule) == (Outcome.DENY, "mesh/failing")
    assert (unpermitted.outcome, narrowed.outcome) == (Outcome.DENY, Outcome.DENY)


def test_a_domains_forbid_is_named_before_the_meshs() -> None:
    files = domain("support", rule("z", "forbid"))

    assert decided(ALL, rule("a", "forbid"), files=files)[1] == "domain/support/z"


def test_a_domain_cannot_permit_what_the_mesh_does_not() -> None:
    assert decided(files=domain("support", ALL, default="deny"))[0] == "deny"


@pytest.mark.parametrize(
    ("default", "when", "outcome"),
    [
        pytest.param("inherit", "caller.domain == 'sales'", "allow", id="inherits"),
        pytest.param("deny", "caller.domain == 'support'", "allow", id="permits too"),
        pytest.param("deny", "caller.domain == 'sales'", "deny", id="does not permit"),
    ],
)
def test_a_domain_that_denies_by_default_must_permit_too(default: str, when: str, outcome: str) -> None:
    assert decided(ALL, files=domain("support", rule("own", "permit", when), default=default))[0] == outcome


def test_a_refusal_tells_what_the_rules_that_could_permit_ask_for() -> None:
    wanting = [rule("one", "permit", "caller.domain == 'x'"), rule("two", "permit", "caller.domain == 'y'")]

    assert decided(*wanting)[2] == "no rule permits: because one (mesh/one); because two (mesh/two)"


def test_visibility_is_the_decision_while_no_rule_reads_the_request() -> None:
    residue = specialise(parse_bundle(mesh(ALL), {}), READ)

    assert may_be_permitted(residue, SAM)
    assert not may_be_permitted(residue, replace(SAM, subject=""))


@pytest.mark.parametrize(
    ("effect", "when", "told"),
    [
        pytest.param("forbid", "caller.domain == 'support'", [("mesh/trial", Outcome.DENY)], id="would forbid"),
        pytest.param("forbid", "caller.domain == 'sales'", [], id="would not"),
        pytest.param("permit", "caller.domain == 'support'", [("mesh/trial", Outcome.ALLOW)], id="would permit"),
    ],
)
@pytest.mark.parametrize("enforced", [pytest.param((), id="denied"), pytest.param((ALL,), id="allowed")])
def test_a_shadow_rule_decides_nothing_and_is_told(
    effect: str, when: str, told: list[tuple[str, Outcome]], enforced: tuple[str, ...]
) -> None:
    without = decide(specialise(parse_bundle(mesh(*enforced), {}), READ), SAM)
    trial = rule("trial", effect, when, mode="shadow")

    decision = decide(specialise(parse_bundle(mesh(*enforced, trial), {}), READ), SAM)

    assert replace(decision, shadows=()) == without
    assert [(shadow.rule, shadow.outcome) for shadow in decision.shadows] == told


def test_what_a_shadow_permit_would_do_hangs_on_the_other_rules() -> None:
    trial = rule("trial", "permit", mode="shadow")

    def told(rules: list[str], files: dict[str, str], who: Caller = SAM) -> list[tuple[str, str]]:
        decision = decide(specialise(parse_bundle(mesh(*rules), files), READ), who)
        return [(shadow.rule, shadow.outcome.value) for shadow in decision.shadows]

    assert told([trial, rule("never", "forbid")], {}) == [("mesh/trial", "deny")]
    assert told([trial], domain("support", default="deny")) == [("mesh/trial", "deny")]
    assert told([trial], domain("support", ALL, default="deny")) == [("mesh/trial", "allow")]
    assert told([ALL], domain("support", trial, default="deny")) == [("domain/support/trial", "allow")]
    assert told([], domain("support", trial, default="deny")) == [("domain/support/trial", "deny")]
    assert told([trial], {}, Caller("dev", "")) == [("mesh/trial", "deny")]


@pytest.mark.parametrize(
    ("when", "outcomes"),
    [
        pytest.param("context.address == '10.0.0.5'", ["allow", "deny", "deny"], id="exactly"),
        pytest.param("context.address.startsWith('10.')", ["allow", "allow", "deny"], id="a network"),
        pytest.param("context.address in ['::1', '10.0.0.6']", ["deny", "allow", "allow"], id="one of some"),
    ],
)
def test_a_rule_can_ask_where_a_call_comes_from(when: str, outcomes: list[str]) -> None:
    residue = specialise(parse_bundle(mesh(rule("a", "permit", when)), {}), READ)

    decided = [decide(residue, SAM, Context(address)).outcome.value for address in ("10.0.0.5", "10.0.0.6", "::1")]

    assert decided == outcomes
    assert may_be_permitted(residue, SAM)
    assert depends_on_context(residue, SAM)


def test_where_a_call_comes_from_is_asked_only_of_those_it_matters_for() -> None:
    rules = [rule("a", "permit", "caller.domain == 'support'"), rule("b", "forbid", "context.address == '10.0.0.5'")]
    residue = specialise(parse_bundle(mesh(*rules), {}), READ)
    other = replace(SAM, domain="sales")

    assert (may_be_permitted(residue, SAM), depends_on_context(residue, SAM)) == (True, True)
    assert (may_be_permitted(residue, other), depends_on_context(residue, other)) == (False, False)


INSIDE = "context.address.startsWith('10.')"


@pytest.mark.parametrize(
    ("rules", "may"),
    [
        pytest.param([ALL], True, id="permitted wherever it is"),
        pytest.param([ALL, rule("b", "forbid", "caller.subject == 'tool'")], False, id="forbidden wherever it is"),
        pytest.param([rule("a", "permit", INSIDE)], False, id="a permit by the address, which is not known"),
        pytest.param([ALL, rule("b", "forbid", f"!{INSIDE}")], True, id="a forbid by the address, of everybody"),
        pytest.param(
            [ALL, rule("b", "forbid", f"caller.subject == 'tool' && !{INSIDE}")], False, id="a forbid of it by address"
        ),
        pytest.param(
            [ALL, rule("b", "forbid", f"caller.subject == 'sam' && !{INSIDE}")],
            True,
            id="a forbid of others by address",
        ),
        pytest.param([ALL, rule("b", "forbid", f"!({INSIDE} || caller.domain == 'x')")], False, id="or of others"),
    ],
)
def test_a_tool_acts_where_no_address_would_have_the_rules_deny_it_alone(rules: list[str], *, may: bool) -> None:
    residue = specialise(parse_bundle(mesh(*rules), {}), READ)

    assert may_act(residue, Caller("llmesh", "tool", domain="support")) is may
    assert not may_act(residue, Caller("llmesh", ""))


def test_a_decision_is_a_value() -> None:
    residue = specialise(parse_bundle(mesh(ALL), {}), READ)

    assert decide(residue, SAM) == decide(residue, SAM)
    assert decide(residue, SAM).outcome is Outcome.ALLOW
