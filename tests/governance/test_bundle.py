from __future__ import annotations

import pytest

from governance.bundle import parse_bundle
from governance.ownership import parse_ownership
from llmesh.document import DocumentError
from tests.governance.rules import domain, mesh, rule

OWNERS = parse_ownership("owners: {acme.support: support, acme.human_resources: human_resources}")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("version: 1\nruels: []\n", 2, "did you mean `rules`?", id="key at the top"),
        pytest.param(
            "version: 1\nrules:\n- id: a\n  effect: permit\n  reason: r\n  wehn: 'true'\n",
            6,
            "did you mean `when`?",
            id="key in a rule",
        ),
        pytest.param(
            "version: 1\nrules:\n- id: a\n  effect: permit\n  reason: r\n  applies:\n    effect: [read]\n",
            7,
            "did you mean `effects`?",
            id="key in applies",
        ),
        pytest.param(
            mesh(rule("a", "permit"), rule("b", "permit"), rule("a", "forbid")), 9, "two rules", id="id given twice"
        ),
        pytest.param(
            "version: 1\nrules:\n- {id: a, effect: permit, reason: r}\n- {id: a, effect: permit, reason: r}\n",
            4,
            "two rules",
            id="id given twice, in one line each",
        ),
        pytest.param(mesh(rule("a", "permit"), rule("b", "forbid", "caller.dmain == 'a'")), 9, "'dmain'", id="bad CEL"),
        pytest.param(mesh(rule("a", "allow")), 4, "`rules.0.effect`", id="unknown effect"),
        pytest.param(mesh(rule("A b", "permit")), 3, "`rules.0.id`", id="odd id"),
        pytest.param(mesh(rule("a", "permit", applies="{effects: [reed]}")), 6, "'read'", id="unknown method effect"),
        pytest.param("version: 2\n", 1, "`version`", id="another version"),
        pytest.param("rules: []\n", 1, "`version`: field required", id="no version"),
    ],
)
def test_what_is_wrong_in_the_mesh_file_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_bundle(text, {})

    assert (refused.value.file, refused.value.line) == ("mesh.yaml", line)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("version: 1\ndomain: sales\ndefault: inherit\n", 2, "must be named sales.yaml", id="other name"),
        pytest.param("version: 1\ndomain: support\n", 1, "`default`: field required", id="no default"),
        pytest.param("version: 1\ndomain: support\ndefault: allow\n", 3, "`default`", id="unknown default"),
        pytest.param("version: 1\ndefault: inherit\n", 1, "`domain`: field required", id="no domain"),
        pytest.param(
            "version: 1\ndomain: support\ndefault: deny\nrules:\n- {id: support, effect: permit, reason: r, when: '1'}",
            5,
            "must be true or false",
            id="rule named like the domain",
        ),
    ],
)
def test_what_is_wrong_in_a_domains_file_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_bundle(mesh(), {"domains/support.yaml": text})

    assert (refused.value.file, refused.value.line) == ("domains/support.yaml", line)
    assert said in refused.value.message


def test_rules_are_named_for_whose_they_are() -> None:
    bundle = parse_bundle(mesh(rule("b", "permit"), rule("a", "permit")), domain("support", rule("a", "forbid")))

    assert [found.id for found in bundle.mesh] == ["mesh/a", "mesh/b"]
    assert [found.id for found in bundle.domains["support"].rules] == ["domain/support/a"]


def test_the_digest_changes_with_any_text() -> None:
    texts: list[tuple[str, dict[str, str]]] = [
        (mesh(), {}),
        (mesh(rule("a", "permit")), {}),
        (mesh(), domain("support")),
        (mesh(), domain("support", default="deny")),
        (mesh(), domain("support") | domain("sales")),
    ]

    assert len({parse_bundle(*text).digest for text in texts}) == len(texts)
    assert parse_bundle(*texts[3]).digest == parse_bundle(*texts[3]).digest


@pytest.mark.parametrize(
    ("applies", "said"),
    [
        pytest.param(
            "{domains: [suport]}", "`suport` owns nothing by ownership.yaml; did you mean `support`?", id="near"
        ),
        pytest.param(
            "{domains: [support, x]}", "expected one of human_resources, platform, support", id="nothing near"
        ),
        pytest.param(
            "{services: [acme.suport.v1.Tickets]}",
            "`acme.suport.v1.Tickets` by ownership.yaml; did you mean one in `acme.support`?",
            id="a service that nobody owns",
        ),
        pytest.param("{services: [Tickets]}", "no domain owns the package of `Tickets`", id="no package"),
    ],
)
def test_a_rule_about_what_nobody_owns_is_refused_with_the_nearest_that_somebody_does(applies: str, said: str) -> None:
    rules = rule("right", "permit"), rule("wrong", "forbid", applies=applies)
    for in_mesh, in_domain, place in (
        (rules, (), ("mesh.yaml", 9)),
        ((), rules, ("domains/support.yaml", 11)),
    ):
        with pytest.raises(DocumentError) as refused:
            parse_bundle(mesh(*in_mesh), domain("support", *in_domain), ownership=OWNERS)

        assert (refused.value.file, refused.value.line) == place
        assert "rule `wrong`: " in refused.value.message
        assert said in refused.value.message


def test_a_file_of_a_domain_that_owns_nothing_is_refused() -> None:
    with pytest.raises(DocumentError) as refused:
        parse_bundle(mesh(), domain("suport", default="deny"), ownership=OWNERS)

    assert (refused.value.file, refused.value.line) == ("domains/suport.yaml", 2)
    assert "did you mean `support`?" in refused.value.message


@pytest.mark.parametrize(
    "applies",
    [
        "{domains: [platform, support]}",
        "{services: [acme.support.v2.Anything, llmesh.api.catalog.v1.CatalogService, grpc.health.v1.Health]}",
    ],
)
def test_a_rule_may_be_about_what_is_owned_and_what_the_platform_serves(applies: str) -> None:
    parse_bundle(mesh(rule("a", "permit", applies=applies)), {}, ownership=OWNERS)


def test_a_file_may_be_of_any_domain_that_can_own() -> None:
    bundle = parse_bundle(mesh(), domain("human_resources", default="deny"), ownership=OWNERS)

    assert not bundle.domains["human_resources"].inherit
