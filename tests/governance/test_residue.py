from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.bundle import parse_bundle
from governance.decide import decide
from governance.expression import FALSE, TRUE, evaluate
from governance.residue import Residue, specialise
from governance.words import Caller, Outcome, Tool
from tests.governance.expressions import about_both, callers, tools
from tests.governance.rules import READ, SAM, domain, mesh, rule

bodies = st.lists(st.tuples(st.sampled_from(["permit", "forbid"]), about_both), max_size=4)
defaults = st.sampled_from(["inherit", "deny"])


def rules_of(body: list[tuple[str, str]]) -> list[str]:
    return [rule(f"r{number}", effect, when) for number, (effect, when) in enumerate(body)]


@given(bodies, bodies, defaults, tools, callers)
@settings(max_examples=150, deadline=None)
def test_adding_a_domains_file_never_turns_a_denial_into_a_permission(
    mesh_body: list[tuple[str, str]], domain_body: list[tuple[str, str]], default: str, tool: Tool, caller: Caller
) -> None:
    tool = replace(tool, domain="support")
    without = parse_bundle(mesh(*rules_of(mesh_body)), {})
    narrowed = parse_bundle(mesh(*rules_of(mesh_body)), domain("support", *rules_of(domain_body), default=default))

    if decide(specialise(narrowed, tool), caller).outcome is Outcome.ALLOW:
        assert decide(specialise(without, tool), caller).outcome is Outcome.ALLOW


@given(bodies, bodies, bodies, tools, callers)
@settings(max_examples=100, deadline=None)
def test_no_edit_of_a_domains_file_permits_what_the_mesh_does_not(
    mesh_body: list[tuple[str, str]],
    before: list[tuple[str, str]],
    after: list[tuple[str, str]],
    tool: Tool,
    caller: Caller,
) -> None:
    tool = replace(tool, domain="support")
    without = decide(specialise(parse_bundle(mesh(*rules_of(mesh_body)), {}), tool), caller)

    for body, default in ((before, "inherit"), (after, "deny"), (after, "inherit"), ([], "deny")):
        files = domain("support", *rules_of(body), default=default)
        edited = decide(specialise(parse_bundle(mesh(*rules_of(mesh_body)), files), tool), caller)
        assert edited.outcome is Outcome.DENY or without.outcome is Outcome.ALLOW


@given(bodies, bodies, defaults, tools, callers)
@settings(max_examples=100, deadline=None)
def test_deleting_a_domains_permits_permits_no_more(
    mesh_body: list[tuple[str, str]], domain_body: list[tuple[str, str]], default: str, tool: Tool, caller: Caller
) -> None:
    tool, text = replace(tool, domain="support"), mesh(*rules_of(mesh_body))
    fewer = [(effect, when) for effect, when in domain_body if effect == "forbid"]
    files = [domain("support", *rules_of(body), default=default) for body in (domain_body, fewer)]

    before, after = (decide(specialise(parse_bundle(text, each), tool), caller) for each in files)
    assert after.outcome is Outcome.DENY or before.outcome is Outcome.ALLOW


@given(bodies, bodies, tools, callers)
@settings(max_examples=100, deadline=None)
def test_a_domains_file_changes_nothing_for_other_domains(
    mesh_body: list[tuple[str, str]], domain_body: list[tuple[str, str]], tool: Tool, caller: Caller
) -> None:
    without = parse_bundle(mesh(*rules_of(mesh_body)), {})
    beside = parse_bundle(mesh(*rules_of(mesh_body)), domain("elsewhere", *rules_of(domain_body), default="deny"))

    assert decide(specialise(beside, tool), caller) == decide(specialise(without, tool), caller)


@given(bodies, st.tuples(st.just("forbid"), about_both), tools, callers)
@settings(max_examples=100, deadline=None)
def test_adding_a_forbid_never_permits_more(
    body: list[tuple[str, str]], forbid: tuple[str, str], tool: Tool, caller: Caller
) -> None:
    before = decide(specialise(parse_bundle(mesh(*rules_of(body)), {}), tool), caller)
    after = decide(specialise(parse_bundle(mesh(*rules_of([*body, forbid])), {}), tool), caller)

    assert not (before.outcome is Outcome.DENY and after.outcome is Outcome.ALLOW)


@given(bodies, bodies, defaults, tools, callers)
@settings(max_examples=150, deadline=None)
def test_the_whole_as_one_expression_says_what_the_rules_say_one_by_one(
    mesh_body: list[tuple[str, str]], domain_body: list[tuple[str, str]], default: str, tool: Tool, caller: Caller
) -> None:
    tool = replace(tool, domain="support")
    files = domain("support", *rules_of(domain_body), default=default)
    residue = specialise(parse_bundle(mesh(*rules_of(mesh_body)), files), tool)
    facts = {("caller", name): getattr(caller, name) for name in Caller.__slots__}

    permitted = decide(residue, caller).outcome is Outcome.ALLOW
    assert evaluate(residue.expression, facts) is permitted


@pytest.mark.parametrize(
    ("applies", "bears"),
    [
        pytest.param("", True, id="everywhere"),
        pytest.param("{domains: [support]}", True, id="its domain"),
        pytest.param("{domains: [sales]}", False, id="another domain"),
        pytest.param("{services: [acme.support.v1.Tickets]}", True, id="its service"),
        pytest.param("{services: [acme.support.v1.Ticket]}", False, id="part of its name"),
        pytest.param("{methods: [Get]}", True, id="its method"),
        pytest.param("{methods: [Delete, Put]}", False, id="other methods"),
        pytest.param("{effects: [read, write]}", True, id="its effect"),
        pytest.param("{effects: [write]}", False, id="another effect"),
        pytest.param("{domains: [support], effects: [write]}", False, id="only one of two"),
    ],
)
def test_a_tool_meets_only_the_rules_that_apply_to_it(applies: str, *, bears: bool) -> None:
    residue = specialise(parse_bundle(mesh(rule("a", "permit", applies=applies)), {}), READ)

    assert bool(residue.permits) is bears


def test_a_rule_for_some_roles_asks_for_one_of_them() -> None:
    applies = "{roles: [owner, editor], effects: [read]}"
    permit = rule("a", "permit", "caller.domain == 'support'", applies=applies)
    residue = specialise(parse_bundle(mesh(permit), {}), READ)

    outcomes = [
        decide(residue, replace(SAM, roles=roles)).outcome.value
        for roles in ((), ("own",), ("owner",), ("x", "editor"))
    ]
    assert outcomes == ["deny", "deny", "allow", "allow"]


def test_a_forbid_for_some_roles_that_cannot_be_evaluated_forbids_only_those() -> None:
    failing = rule("failing", "forbid", "tool.labels['tier'] == 'gold'", applies="{roles: [editor]}")
    residue = specialise(parse_bundle(mesh(failing, rule("all", "permit")), {}), READ)

    assert decide(residue, SAM).rule == "mesh/failing"
    assert decide(residue, replace(SAM, roles=("owner",))).outcome is Outcome.ALLOW


@given(bodies, bodies, defaults, tools)
@settings(max_examples=50, deadline=None)
def test_equal_bundles_and_tools_give_equal_residues_of_the_same_parts(
    mesh_body: list[tuple[str, str]], domain_body: list[tuple[str, str]], default: str, tool: Tool
) -> None:
    def residue(beside: str) -> Residue:
        files = domain("support", *rules_of(domain_body), default=default) | domain("elsewhere", rule(beside, "forbid"))
        return specialise(parse_bundle(mesh(*rules_of(mesh_body)), files), replace(tool, domain="support"))

    first, second = residue("one"), residue("two")

    assert first == second
    kept = zip(first.permits + first.forbids, second.permits + second.forbids, strict=True)
    assert all(one is other for one, other in kept)


def test_a_tool_looks_at_its_own_rules_alone_however_many_others_there_are() -> None:
    others = [
        rule(f"r{number}", "forbid", applies=applies)
        for number, applies in enumerate(
            [
                *(f"{{domains: [d{number}]}}" for number in range(50)),
                *(f"{{domains: [d{number}], methods: [Get]}}" for number in range(50)),
                *(f"{{services: [acme.support.v1.Other{number}], effects: [read]}}" for number in range(50)),
                *(f"{{methods: [Get{number}]}}" for number in range(50)),
            ]
        )
    ]
    bundle = parse_bundle(mesh(rule("all", "permit"), *others), {})

    assert [found.id for found in bundle.mesh.filed_for(READ)] == ["mesh/all"]


@pytest.mark.parametrize(
    ("effect", "outcome"), [pytest.param("permit", Outcome.DENY), pytest.param("forbid", Outcome.DENY)]
)
def test_a_rule_that_cannot_be_evaluated_denies(effect: str, outcome: Outcome) -> None:
    failing = rule("failing", effect, "tool.labels['tier'] == 'gold' || caller.domain == 'sales'")
    others = [] if effect == "permit" else [rule("all", "permit")]

    decision = decide(specialise(parse_bundle(mesh(failing, *others), {}), READ), SAM)

    assert decision.outcome is outcome
    assert decision.rule == ("" if effect == "permit" else "mesh/failing")


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        pytest.param("caller.domain == 'support' || tool.labels['tier'] == 'gold'", Outcome.ALLOW, id="not asked"),
        pytest.param("caller.domain == 'sales' ? tool.labels['tier'] == 'gold' : true", Outcome.ALLOW, id="not chosen"),
        pytest.param("caller.domain == 'support' ? tool.labels['tier'] == 'gold' : true", Outcome.DENY, id="chosen"),
        pytest.param("!(caller.domain == 'sales' || tool.labels['tier'] == 'gold')", Outcome.DENY, id="denied"),
        pytest.param("(tool.labels['tier'] == 'gold' || caller.domain == 'support') ? true : true", Outcome.ALLOW),
        pytest.param("(tool.labels['tier'] == 'gold' || caller.domain == 'sales') ? true : true", Outcome.DENY),
    ],
)
def test_a_label_that_is_missing_matters_only_where_the_caller_makes_it_matter(when: str, outcome: Outcome) -> None:
    decided = decide(specialise(parse_bundle(mesh(rule("one", "permit", when)), {}), READ), SAM)

    assert decided.outcome is outcome


def test_what_the_tool_decides_is_folded_away() -> None:
    rules = [
        rule("never", "permit", "tool.hidden"),
        rule("always", "permit", "tool.domain == 'support'"),
        rule("never-either", "forbid", "'pii' in tool.data_classes && caller.domain != 'support'"),
    ]

    residue = specialise(parse_bundle(mesh(*rules), {}), READ)

    assert [(clause.rule, clause.when) for clause in residue.permits] == [("mesh/always", TRUE)]
    assert residue.forbids == ()


def test_a_method_that_no_rule_permits_is_open_to_nobody() -> None:
    assert specialise(parse_bundle(mesh(), {}), READ).expression == FALSE
