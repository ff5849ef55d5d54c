"""What no call may carry, whoever makes it: refused or removed before anybody asks who calls."""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.snapshot.caller import DELEGATION
from gateway.snapshot.service import CALL_ID
from gateway.xds.messages import make, pack

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"

# One digit to eight, then a unit: "gRPC over HTTP2", Timeout.
_GRPC_TIMEOUT = "[0-9]{1,8}[HMSmun]"
# The caller's own grpc-timeout, for as long as the edge looks at it.
_ASKED_TIMEOUT = "x-llmesh-asked-timeout"
# Names that a caller may not send. `_` is a letter of metadata keys like any
# other, so keys that have it pass; but some libraries of tools read it as `-`.
# `llmesh-delegation` itself is for verifying to judge.
_NOT_THE_CALLERS = "(x[-_](llmesh|envoy|forwarded)[-_]|x[-_]request[-_]id).*|llmesh_delegation"
# By which the gateway says from where somebody calls for whom it makes a call.
FORWARDED_FOR = "x-forwarded-for"
_NOT_THE_GATEWAYS = _NOT_THE_CALLERS.replace("|forwarded", "")
# Names that some libraries read as the call's id.
_LIKE_CALL_ID = "x(-llmesh-call_|-llmesh_call[-_]|_llmesh[-_]call[-_])id"
_CONTENT_TYPE = r"application/grpc(\+[a-z0-9.]+)?"
# Longer ones are no tool's: a service's name has at most 255 bytes.
MAX_PATH_BYTES = 512
_PATH = "[^?#]+"
# What every gRPC library reads ("gRPC over HTTP2", Message-Encoding).
_ENCODING = "identity|gzip|deflate"
CONTENT, METHOD, MALFORMED_PATH, TIMEOUT, ENCODING = POLICIES = (
    "edge/content-type",
    "edge/method",
    "edge/path",
    "edge/timeout",
    "edge/encoding",
)


def strip(*, gateway: bool = False) -> dict[str, Untyped]:
    """What no client may say: who it is, what Envoy should do, where it came from. gateway: which may say the last."""
    # Envoy replaces a malformed grpc-timeout by the route's cap before any filter sees it (1.40).
    asked = {"header": {"key": _ASKED_TIMEOUT, "value": "%REQ(GRPC-TIMEOUT)%"}, "append_action": "ADD_IF_ABSENT"}
    mutation = make(
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[_removed(_NOT_THE_GATEWAYS if gateway else _NOT_THE_CALLERS), {"append": asked}],
    )
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": pack(mutation)}


def _removed(names: str) -> dict[str, Untyped]:
    return {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": names}}}}


def clean_rest() -> Message:
    """The filter that removes what only the edge looks at, and what the early strip does not see.

    That is trailers, and what a tool says of the call's id.
    """
    return make(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={
            "request_mutations": [{"remove": _ASKED_TIMEOUT}, {"remove": FORWARDED_FOR}],
            # The name itself is set anew by then, by the tool's virtual host.
            "response_mutations": [_removed(_LIKE_CALL_ID)],
            # Of a tool's trailers, its provenance passes.
            "request_trailers_mutations": [_removed(_NOT_THE_CALLERS), _removed(f"authorization|{DELEGATION}")],
            "response_trailers_mutations": [_removed(f"{CALL_ID}|{_LIKE_CALL_ID}")],
        },
    )


def refuse_no_calls() -> Message:
    """The filter that refuses requests that are no gRPC calls."""
    refused: dict[str, list[dict[str, Untyped]]] = {
        CONTENT: [_differs("content-type", _CONTENT_TYPE), {"name": "content-type", "present_match": False}],
        METHOD: [_differs(":method", "POST")],
        # Envoy's routes do not look at a query, so it would pass, and a secret in it with it.
        MALFORMED_PATH: [_differs(":path", _PATH)],
        # Where Envoy passes it on, it poisons the connection to the tool.
        TIMEOUT: [_differs(_ASKED_TIMEOUT, _GRPC_TIMEOUT)],
        # So would a name that gRPC's C core does not know.
        ENCODING: [_differs("grpc-encoding", _ENCODING)],
    }
    policies: dict[str, Untyped] = {
        name: {"permissions": [{"header": header} for header in headers], "principals": [{"any": True}]}
        for name, headers in refused.items()
    }
    return make(_RBAC, rules={"action": "DENY", "policies": policies}, rules_stat_prefix="edge_")


def _differs(name: str, expected: str) -> dict[str, Untyped]:
    """A header that is there, and is not as the regular expression says."""
    return {"name": name, "string_match": {"safe_regex": {"regex": expected}}, "invert_match": True}
