"""What no call may carry, whoever makes it: refused or removed before anybody asks who calls."""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.xds.messages import make, pack

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"

# One digit to eight, then a unit: "gRPC over HTTP2", Timeout.
_GRPC_TIMEOUT = "[0-9]{1,8}[HMSmun]"
# The caller's own grpc-timeout, for as long as the edge looks at it; caller.lua removes it.
_ASKED_TIMEOUT = "x-llmesh-asked-timeout"
# Names that a caller may not send. `_` is a letter of metadata keys like any
# other, so keys that have it pass; but some libraries of tools read it as `-`.
_NOT_THE_CALLERS = "(x[-_](llmesh|envoy|forwarded)[-_]|x[-_]request[-_]id).*"
_CALL_ID = "x[-_]llmesh[-_]call[-_]id"
_CONTENT_TYPE = r"application/grpc(\+[a-z0-9.]+)?"
MAX_PATH_BYTES = 512
_PATH = "[^?#]+"
CONTENT, METHOD, MALFORMED_PATH, LONG_PATH = "edge/content-type", "edge/method", "edge/path", "edge/path-length"


def strip() -> dict[str, Untyped]:
    """What no client may say: who it is, what Envoy should do, where it came from."""
    # Envoy replaces a malformed grpc-timeout by the route's cap before any filter sees it (1.40).
    asked = {"header": {"key": _ASKED_TIMEOUT, "value": "%REQ(GRPC-TIMEOUT)%"}, "append_action": "ADD_IF_ABSENT"}
    mutation = make(
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[_removed(_NOT_THE_CALLERS), {"append": asked}],
    )
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": pack(mutation)}


def _path_is_long() -> dict[str, Untyped]:
    # A regular expression that counts that far is larger than Envoy takes.
    path = {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "path"}}
    size = {"call_expr": {"function": "size", "args": [path]}}
    limit = {"const_expr": {"int64_value": MAX_PATH_BYTES}}
    return {"call_expr": {"function": "_>_", "args": [size, limit]}}


def _removed(names: str) -> dict[str, Untyped]:
    return {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": names}}}}


def call_id() -> Message:
    """The filter that gives each call its id, and its answer the same; a tool cannot change it."""

    def header(value: str) -> dict[str, Untyped]:
        header = {"key": "x-llmesh-call-id", "value": value}
        return {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}

    return make(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={
            "request_mutations": [header("%REQ(X-REQUEST-ID)%")],
            "response_mutations": [_removed(_CALL_ID), header("%REQ(X-REQUEST-ID)%")],
            # The early mutation does not see trailers. Of a tool's, its provenance passes.
            "request_trailers_mutations": [_removed(_NOT_THE_CALLERS), _removed("authorization")],
            "response_trailers_mutations": [_removed(_CALL_ID)],
        },
    )


def refuse_malformed_timeout() -> Message:
    """The filter that refuses a deadline that is none."""
    # Where Envoy passes it on, it poisons the connection to the tool.
    matcher = {"safe_regex": {"regex": _GRPC_TIMEOUT}}
    return make(
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        abort={"grpc_status": 3, "percentage": {"numerator": 100}},
        headers=[{"name": _ASKED_TIMEOUT, "string_match": matcher, "invert_match": True}],
    )


def refuse_no_calls() -> Message:
    """The filter that refuses requests that are no gRPC calls."""
    content = {"name": "content-type", "string_match": {"safe_regex": {"regex": _CONTENT_TYPE}}, "invert_match": True}
    absent = {"name": "content-type", "present_match": False}
    method = {"name": ":method", "string_match": {"exact": "POST"}, "invert_match": True}
    # Envoy's routes do not look at a query, so it would pass, and a secret in it with it.
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": _PATH}}, "invert_match": True}
    refused = {CONTENT: [content, absent], METHOD: [method], MALFORMED_PATH: [path]}
    policies: dict[str, Untyped] = {
        name: {"permissions": [{"header": header} for header in headers], "principals": [{"any": True}]}
        for name, headers in refused.items()
    }
    policies[LONG_PATH] = {"permissions": [{"any": True}], "principals": [{"any": True}], "condition": _path_is_long()}
    return make(_RBAC, rules={"action": "DENY", "policies": policies}, rules_stat_prefix="edge_")
