"""Who may call: a residue compiled to Envoy's RBAC.

INVARIANT: the first matcher is the whole decision, as one total boolean over
the derived caller, and the only one that allows; where it has no value,
nothing is allowed. The ones after it only supply a rule id and reason to a
call that is refused already: without them the same calls are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.snapshot.predicate import is_typed, predicate
from gateway.xds.messages import make, pack
from governance.expression import FALSE, Expression
from governance.residue import Residue
from governance.rule import Clause

PERMIT = "permit"
# What is held as it was made: most methods of a domain share theirs, and an edit leaves most rules as they were.
# Rules are type-checked, so that no two of them are equal to Python (`1 == True`) and not the same.
KEPT_RULES = 4_096

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"


def rules(residue: Residue) -> dict[str, Untyped]:
    """The per-route RBAC that decides, as an Any."""
    return _rules(residue.expression, residue.forbids)


def are_typed(residue: Residue) -> bool:
    """Whether the RBAC reads the caller with its types."""
    return is_typed(residue.expression) or any(is_typed(clause.when) for clause in residue.forbids)


@lru_cache(maxsize=KEPT_RULES)
def _rules(allowed: Expression, forbids: tuple[Clause, ...]) -> dict[str, Untyped]:
    matchers = [] if allowed == FALSE else [_matcher(allowed, PERMIT, "ALLOW")]
    matchers += [_matcher(clause.when, clause.rule, "DENY") for clause in forbids]
    decided = make(_RBAC, matcher={"matcher_list": {"matchers": matchers}}) if matchers else deny_all()
    return pack(make("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", rbac=decided))


def deny_all() -> Message:
    """The RBAC of the listener: a route that brings no rules of its own is open to nobody."""
    return make(_RBAC, rules={"action": "ALLOW", "policies": {}})


def _matcher(when: Expression, name: str, action: str) -> dict[str, Untyped]:
    decides = make("envoy.config.rbac.v3.Action", name=name, action=action)
    return {
        "predicate": predicate(when),
        "on_match": {"action": {"name": name, "typed_config": pack(decides)}},
    }
