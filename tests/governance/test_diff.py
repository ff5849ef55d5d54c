from __future__ import annotations

from governance.bundle import Bundle, parse_bundle
from governance.diff import Change, Recorded, compare
from governance.words import Caller, Outcome
from tests.governance.rules import READ, SAM, mesh, rule

GET = "acme.support.v1.Tickets/Get"
ADA = Caller("dev", "ada", (), "sales")
ALLOW, DENY = Outcome.ALLOW, Outcome.DENY


def bundle(*rules: str) -> Bundle:
    return parse_bundle(mesh(*rules), {})


def test_calls_that_would_end_otherwise_are_counted_by_caller_and_method() -> None:
    calls = {Recorded(SAM, GET, ALLOW): 2, Recorded(ADA, GET, ALLOW): 3}

    found = compare(
        bundle(rule("all", "permit")),
        bundle(rule("all", "permit"), rule("sales", "forbid", "caller.domain == 'sales'")),
        calls,
        {GET: READ},
    )

    assert found.changes == {Change(ADA, GET, ALLOW, DENY, ("mesh/all", "mesh/sales")): 3}
    assert (found.same, found.unknown) == (2, {})


def test_what_cannot_be_replayed_is_unknown() -> None:
    calls = {
        Recorded(SAM, "acme.gone.v1.Tool/Get", ALLOW): 1,
        Recorded(SAM, GET, DENY): 1,
        Recorded(ADA, GET, ALLOW): 1,
    }
    network = rule("network", "forbid", "caller.domain == 'sales' && context.address == '10.0.0.5'")

    found = compare(bundle(rule("all", "permit")), bundle(rule("all", "permit"), network), calls, {GET: READ})

    assert found.changes == {}
    assert found.same == 0
    assert found.unknown == {
        "nothing is known of the method now": 1,
        "OLD does not say what was recorded": 1,
        "a rule asks how the call came": 1,
    }
