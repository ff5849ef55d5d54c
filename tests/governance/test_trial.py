from __future__ import annotations

import pytest

from governance.bundle import Bundle, parse_bundle
from governance.check import check
from governance.ownership import parse_ownership
from governance.trial import run_tests
from governance.words import Tool
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.document import DocumentError
from tests.governance.rules import domain, mesh, rule, shipped

OWNERS = parse_ownership("owners: {acme.support: support, acme.sales: sales}")
GET = "acme.support.v1.Tickets/Get"
READ = {GET: Tool("acme.support.v1.Tickets", "Get", "support", effect=options.EFFECT_READ)}


def with_tests(name: str, effect: str, *tests: str, when: str = "", mode: str = "", applies: str = "") -> str:
    """A rule with tests."""
    lines = [rule(name, effect, when, applies, mode), "  tests:", *(f"  - {test}" for test in tests)]
    return "\n".join(lines)


def faults(bundle: Bundle) -> list[str]:
    return [trial.fault for trial in run_tests(bundle, READ, OWNERS)]


def found(bundle: Bundle, contracts: dict[str, Tool] | None = None) -> list[tuple[str, str]]:
    """Rule and kind of each finding but for lacking tests."""
    known = contracts or {}
    findings = check(bundle, list(run_tests(bundle, known, OWNERS)), known, OWNERS)
    return [(finding.rule, finding.kind) for finding in findings if finding.kind != "untested"]


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        pytest.param("{call: GET, caller: {roles: [editor]}, expect: allow}", "", id="as expected"),
        pytest.param("{call: GET, expect: deny}", "", id="a denial as expected"),
        pytest.param("{call: GET, expect: allow}", "expected allow, but it is deny as no rule permits", id="denied"),
        pytest.param(
            "{call: GET, caller: {roles: [editor]}, expect: deny}",
            "expected deny, but it is allow by mesh/editors: because editors",
            id="allowed",
        ),
        pytest.param(
            "{call: GET, caller: {roles: [editor]}, expect: allow, rule: mesh/other}",
            "expected allow by mesh/other, but it is by mesh/editors",
            id="another rule",
        ),
        pytest.param("{call: acme.a.v1.B/C, expect: deny}", "name the folder of its .proto files", id="not known"),
        pytest.param("{call: acme.a.v1.B/C, tool: {effect: read}, expect: deny}", "", id="facts stated"),
        pytest.param("{tool: {hidden: true}, caller: {roles: [editor]}, expect: allow}", "", id="facts alone"),
    ],
)
def test_a_test_says_what_went_otherwise(test: str, fault: str) -> None:
    rules = with_tests("editors", "permit", test.replace("GET", GET), when="'editor' in caller.roles")

    [told] = faults(parse_bundle(mesh(rules), {}))

    assert fault in told
    assert bool(told) is bool(fault)


def test_a_test_is_of_the_tool_as_it_states_it() -> None:
    facts = "{domain: sales, effect: write, stage: stable, data_classes: [pii], unclassified: false, cost: low"
    when = (
        "tool.domain == 'sales' && tool.effect == Effect.EFFECT_WRITE && tool.stage == Stage.STAGE_STABLE "
        "&& tool.cost == Cost.COST_LOW && 'pii' in tool.data_classes && !tool.unclassified && tool.labels['a'] == 'b' "
        "&& tool.method == 'Get' "
        "&& caller.actor == 'x' && caller.issuer == 'test' && context.address == '10.0.0.5'"
    )
    call = f"call: {GET}, caller: {{actor: x}}, context: {{address: 10.0.0.5}}"
    text = with_tests("a", "permit", f"{{{call}, tool: {facts}, labels: {{a: b}}}}, expect: allow}}", when=when)

    assert faults(parse_bundle(mesh(text), {})) == [""]


def test_a_tool_without_a_stated_domain_is_its_packages_or_the_files() -> None:
    files = domain(
        "support",
        with_tests("own", "forbid", "{tool: {effect: read}, expect: deny}", when="tool.domain == 'support'"),
    )
    text = with_tests("a", "permit", f"{{call: {GET.replace('support', 'sales')}, tool: {{}}, expect: allow}}")

    assert faults(parse_bundle(mesh(text), files)) == ["", ""]


def test_a_shadow_rule_is_tested_as_if_it_were_enforced() -> None:
    trial = with_tests("trial", "forbid", "{tool: {}, expect: deny, rule: mesh/trial}", mode="shadow")
    beside = rule("beside", "forbid", mode="shadow")

    assert faults(parse_bundle(mesh(rule("all", "permit"), beside, trial), {})) == [""]


@pytest.mark.parametrize(
    ("test", "said"),
    [
        pytest.param("{expect: allow}", "names the method", id="no tool"),
        pytest.param("{tool: {}, expect: maybe}", "'allow' or 'deny'", id="unknown outcome"),
        pytest.param("{tool: {efect: read}, expect: deny}", "did you mean `effect`?", id="unknown fact"),
        pytest.param(
            "{tool: {}, caller: {role: [a]}, expect: deny}", "did you mean `roles`?", id="unknown of a caller"
        ),
        pytest.param("{call: Tickets, expect: deny}", "should match pattern", id="no method"),
    ],
)
def test_what_is_wrong_in_a_test_is_told_with_its_line(test: str, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_bundle(mesh(with_tests("a", "permit", test)), {})

    assert said in refused.value.message
    assert refused.value.line >= 6


def test_every_rule_wants_a_call_that_it_decides_and_one_that_it_leaves_alone() -> None:
    editor, other = "{tool: {}, caller: {roles: [editor]}, expect: EXPECT}", "{tool: {}, expect: EXPECT}"

    def lacking(*tests: str, effect: str = "permit") -> list[str]:
        texts = [with_tests("a", effect, *tests, when="'editor' in caller.roles")]
        texts += [] if effect == "permit" else [rule("all", "permit", "caller.subject != ''")]
        bundle = parse_bundle(mesh(*texts), {})
        findings = check(bundle, list(run_tests(bundle, {})), {})
        return [finding.text.split()[3] for finding in findings if finding.rule == "mesh/a"]

    permits = [editor.replace("EXPECT", "allow"), other.replace("EXPECT", "deny")]
    forbids = [editor.replace("EXPECT", "deny"), other.replace("EXPECT", "allow")]
    assert lacking(*permits) == []
    assert lacking(permits[0]) == ["deny"]
    assert lacking(permits[1]) == ["allow"]
    assert lacking(*forbids, effect="forbid") == []
    assert lacking(forbids[0], effect="forbid") == ["allow"]
    # What another rule makes of a call says nothing of this one.
    nobody = "{tool: {}, caller: {subject: '', roles: [editor]}, expect: deny}"
    assert lacking(permits[0], nobody) == ["deny"]


@pytest.mark.parametrize(
    ("rules", "kinds"),
    [
        pytest.param([rule("a", "permit", "false && caller.domain == 'x'")], [("mesh/a", "dead")], id="never holds"),
        pytest.param([rule("a", "permit"), rule("b", "permit")], [("mesh/b", "duplicate")], id="twice"),
        pytest.param([rule("a", "permit"), rule("b", "forbid")], [], id="other effects"),
        pytest.param(
            [rule("a", "permit"), rule("b", "permit", "caller.domain == 'x'")], [("mesh/b", "shadowed")], id="narrower"
        ),
        pytest.param(
            [
                rule("a", "permit", "caller.domain == 'x'"),
                rule("b", "permit", "caller.domain == 'x' && tool.hidden", applies="{methods: [Get]}"),
            ],
            [("mesh/b", "shadowed")],
            id="one condition more",
        ),
        pytest.param(
            [rule("a", "permit", applies="{effects: [read]}"), rule("b", "permit", applies="{effects: [read, write]}")],
            [("mesh/a", "shadowed")],
            id="fewer effects",
        ),
        pytest.param(
            [rule("a", "permit", applies="{roles: [x]}"), rule("b", "permit", applies="{domains: [sales]}")],
            [],
            id="neither is wider",
        ),
        pytest.param([rule("a", "permit", mode="shadow"), rule("b", "permit")], [("mesh/a", "shadowed")], id="a trial"),
    ],
)
def test_rules_that_never_hold_or_add_nothing_are_found(rules: list[str], kinds: list[tuple[str, str]]) -> None:
    assert found(parse_bundle(mesh(*rules), {})) == kinds


def test_what_a_domain_cannot_do_is_found() -> None:
    files = domain("support", rule("a", "permit"), rule("b", "forbid", applies="{domains: [sales]}"))
    files |= domain(
        "sales", rule("c", "forbid", "caller.domain == 'x' && tool.hidden"), rule("d", "permit"), default="deny"
    )
    bundle = parse_bundle(mesh(rule("all", "permit"), rule("never", "forbid", "caller.domain == 'x'")), files)

    assert found(bundle) == [
        ("domain/sales/c", "shadowed"),
        ("domain/support/a", "dead"),
        ("domain/support/b", "dead"),
    ]


def test_a_rule_that_bears_on_no_known_method_is_only_told() -> None:
    bundle = parse_bundle(
        mesh(rule("a", "permit", applies="{effects: [write]}"), rule("b", "permit", "!tool.hidden")), {}
    )
    findings = list(check(bundle, [], READ))

    assert [(finding.rule, finding.fails) for finding in findings if finding.kind == "unused"] == [("mesh/a", False)]


def test_the_rules_that_come_with_the_mesh_have_nothing_to_mend() -> None:
    bundle = shipped()

    assert list(check(bundle, list(run_tests(bundle, {})), {})) == []
