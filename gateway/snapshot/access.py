"""Who may call: a residue compiled to Envoy's RBAC.

INVARIANT: the ALLOW policy is the whole decision, as one total boolean over
the derived caller; where it has no value, nothing is allowed. The DENY
policies before it only supply a rule id and reason: without them the same
calls are refused. `checked_condition` is never emitted: Envoy accepts and
ignores it.
"""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.xds.messages import make, pack
from governance.expression import FALSE, TRUE, Call, Const, Expression, Field
from governance.residue import Residue

CALLER = "llmesh.caller"
PERMIT = "permit"

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
_PER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"


def forbids(residue: Residue) -> dict[str, Untyped]:
    """The per-route RBAC that names the rule when one forbids, as an Any."""
    policies = {clause.rule: _policy(clause.when) for clause in residue.forbids}
    return _per_route(make(_RBAC, rules={"action": "DENY", "policies": policies}) if policies else make(_RBAC))


def allows(residue: Residue) -> dict[str, Untyped]:
    """The per-route RBAC that decides, as an Any."""
    expression = residue.expression
    policies = {} if expression == FALSE else {PERMIT: _policy(expression)}
    return _per_route(make(_RBAC, rules={"action": "ALLOW", "policies": policies}))


def deny_all() -> Message:
    """The RBAC of the listener: a route that brings no rules of its own is open to nobody."""
    return make(_RBAC, rules={"action": "ALLOW", "policies": {}})


def _per_route(rbac: Message) -> dict[str, Untyped]:
    return pack(make(_PER_ROUTE, rbac=rbac))


def _policy(when: Expression) -> dict[str, Untyped]:
    policy: dict[str, Untyped] = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    return policy if when == TRUE else {**policy, "condition": syntax_tree(when)}


def syntax_tree(expression: Expression) -> dict[str, Untyped]:
    """The expression as fields of a google.api.expr.v1alpha1.Expr, its caller read from Envoy's metadata."""
    match expression:
        case Const(value):
            return _constant(value)
        case Field("caller", name):
            return _select(_derived_caller(), name)
        case Call(function, arguments) if function in ("startsWith", "endsWith", "contains"):
            target, *rest = (syntax_tree(argument) for argument in arguments)
            return {"call_expr": {"target": target, "function": function, "args": rest}}
        case Call(function, arguments):
            return {"call_expr": {"function": function, "args": [syntax_tree(argument) for argument in arguments]}}
        case _:
            raise TypeError(f"a residue speaks of the caller alone, not of {expression}")


def _constant(value: bool | int | str | tuple[str, ...]) -> dict[str, Untyped]:  # noqa: FBT001 - a value, not a switch
    match value:
        case bool():
            return {"const_expr": {"bool_value": value}}
        case int():
            return {"const_expr": {"int64_value": value}}
        case str():
            return {"const_expr": {"string_value": value}}
        case tuple():
            return {"list_expr": {"elements": [_constant(item) for item in value]}}


def _derived_caller() -> dict[str, Untyped]:
    # That is, the value under metadata.filter_metadata['llmesh.caller'].v.
    metadata = _select({"ident_expr": {"name": "metadata"}}, "filter_metadata")
    return _select({"call_expr": {"function": "_[_]", "args": [metadata, _constant(CALLER)]}}, "v")


def _select(operand: dict[str, Untyped], field: str) -> dict[str, Untyped]:
    return {"select_expr": {"operand": operand, "field": field}}
