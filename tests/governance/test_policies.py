"""The policies as shipped: what a mesh permits on its first day."""

from __future__ import annotations

import pytest

from governance.decide import decide
from governance.issuers import parse_issuers
from governance.ownership import parse_ownership
from governance.residue import specialise
from governance.words import Caller, Outcome, Tool
from llmesh.api.options.v1 import options_pb2 as options
from tests.governance.rules import POLICIES, shipped

READ, WRITE, DESTRUCTIVE = options.EFFECT_READ, options.EFFECT_WRITE, options.EFFECT_DESTRUCTIVE
BUNDLE = shipped()


def someone(domain: str = "", *roles: str) -> Caller:
    return Caller("dev", "someone", roles, domain)


def tool(domain: str, effect: int, *data_classes: str) -> Tool:
    return Tool(f"acme.{domain}.v1.Tool", "Call", domain, effect=effect, data_classes=data_classes)


@pytest.mark.parametrize(
    ("caller", "effect", "permit"),
    [
        pytest.param(someone(), READ, "mesh/reads", id="anyone signed in reads"),
        pytest.param(someone("sales", "editor"), READ, "mesh/reads", id="other domains read"),
        pytest.param(Caller(), READ, "", id="nobody reads nothing"),
        pytest.param(Caller("dev", "", ("owner",), "writing"), READ, "", id="no subject is nobody"),
        pytest.param(someone(), WRITE, "", id="no role, no writing"),
        pytest.param(someone("writing"), WRITE, "", id="the domain alone is no role"),
        pytest.param(someone("writing", "editor"), WRITE, "mesh/writes", id="an editor of the domain writes"),
        pytest.param(someone("writing", "owner"), WRITE, "mesh/writes", id="an owner of the domain writes"),
        pytest.param(someone("sales", "editor"), WRITE, "", id="another domain's editor does not"),
        pytest.param(someone("", "editor"), WRITE, "", id="an editor of no domain does not"),
        pytest.param(someone("writing", "editor"), DESTRUCTIVE, "", id="an editor destroys nothing"),
        pytest.param(someone("writing", "owner"), DESTRUCTIVE, "mesh/destructive", id="an owner of the domain may"),
        pytest.param(someone("sales", "owner"), DESTRUCTIVE, "", id="another domain's owner may not"),
        pytest.param(someone("writing", "Owner"), DESTRUCTIVE, "", id="roles are exact"),
        pytest.param(someone("writing", "owner"), 0, "", id="an effect not stated is nobody's"),
        pytest.param(someone("writing", "owner"), 99, "", id="an effect not known is nobody's"),
    ],
)
def test_who_may_call_what(caller: Caller, effect: int, permit: str) -> None:
    decision = decide(specialise(BUNDLE, tool("writing", effect)), caller)

    assert (decision.outcome is Outcome.ALLOW) is bool(permit)
    assert decision.rule == permit


@pytest.mark.parametrize(
    ("caller", "outcome"),
    [
        pytest.param(someone("support"), Outcome.ALLOW, id="support's own"),
        pytest.param(someone("engineering", "owner"), Outcome.DENY, id="others"),
        pytest.param(Caller("dev", "x", (), "engineering", ("pii",)), Outcome.ALLOW, id="others, cleared"),
    ],
)
def test_tickets_with_personal_data_need_support_or_clearance(caller: Caller, outcome: Outcome) -> None:
    decision = decide(specialise(BUNDLE, tool("support", READ, "internal", "pii")), caller)

    assert decision.outcome is outcome
    assert decision.rule == ("mesh/reads" if outcome is Outcome.ALLOW else "domain/support/personal-data")


def test_the_other_files_can_be_read() -> None:
    issuers = parse_issuers((POLICIES / "issuers.yaml").read_text()).issuers
    ownership = parse_ownership((POLICIES / "ownership.yaml").read_text())

    assert [(issuer.name, issuer.development) for issuer in issuers] == [("dev", True)]
    assert ownership.domain_of("acme.support.v1") == "support"
