"""What a refused caller reads, composed when the snapshot is built.

A route's metadata maps Envoy's response code details to a message and to a
serialised google.rpc.Status; a static local-reply mapper (edge.py) returns
both, so a refusal costs no Python. The Status repeats code and message, as
gRPC clients check that they agree.
"""

from __future__ import annotations

import base64
from typing import Any as Untyped

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from governance.decide import no_rule_permits
from governance.residue import Residue

# Names of route metadata; edge.py reads them.
DETAILS = "llmesh.refusal.details"
MESSAGE = "llmesh.refusal.message"
UNAVAILABLE = "unavailable"
OVERLOADED = "overloaded"
CUT = "cut"
RETRY_AFTER_S = 1
ERROR_DOMAIN = "llmesh"
# A gRPC client takes 8 KiB of headers for certain, and the text stands in them
# three times: percent-encoded, and twice in base64.
MAX_TEXT_BYTES = 1000


def route_metadata(residue: Residue) -> dict[str, dict[str, str]]:
    """Route metadata: name -> fields, all text. A hidden tool's has no refusals by rule: it looks like no tool."""
    details: dict[str, str] = {}
    messages: dict[str, str] = {}
    statuses = {UNAVAILABLE: _unavailable(residue), OVERLOADED: _overloaded(residue), CUT: _cut(residue)}
    if not residue.tool.hidden:
        statuses |= {matched(clause.rule): _denied(residue, clause.rule, clause.reason) for clause in residue.forbids}
        statuses[matched("none")] = _denied(residue, "", no_rule_permits(residue))
    for key, status in statuses.items():
        messages[key] = status.message
        details[key] = encoded(status)
    return {DETAILS: details, MESSAGE: messages}


def encoded(status: status_pb2.Status) -> str:
    """A status as a value of the header grpc-status-details-bin."""
    return base64.b64encode(status.SerializeToString(deterministic=True)).decode()


def flooded() -> status_pb2.Status:
    """What a connection reads that showed a bad token, when its address showed too many."""
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        "too many tokens from this address were not believed, one of them on this connection; "
        f"send another in {RETRY_AFTER_S} s",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.ErrorInfo(reason="TOO_MANY_BAD_TOKENS", domain=ERROR_DOMAIN),
    )


def matched(policy: str) -> str:
    """Envoy's response code details when an RBAC policy refuses."""
    return f"rbac_access_denied_matched_policy[{policy}]"


def _shortened(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= MAX_TEXT_BYTES else encoded[:MAX_TEXT_BYTES].decode(errors="ignore") + "..."


def _denied(residue: Residue, rule: str, reason: str) -> status_pb2.Status:
    reason = _shortened(reason)
    message = f"{reason} ({rule})" if rule else reason
    facts = {"rule": rule, "reason": reason, "service": residue.tool.service, "method": residue.tool.method}
    return _status(
        code_pb2.PERMISSION_DENIED,
        message,
        error_details_pb2.ErrorInfo(
            reason="RULE_FORBIDS" if rule else "NO_RULE_PERMITS", domain=ERROR_DOMAIN, metadata=facts
        ),
    )


def _unavailable(residue: Residue) -> status_pb2.Status:
    return _status(
        code_pb2.UNAVAILABLE,
        f"no endpoint of {residue.tool.service} answers; try again in {RETRY_AFTER_S} s",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.ErrorInfo(
            reason="TOOL_DOWN", domain=ERROR_DOMAIN, metadata={"service": residue.tool.service}
        ),
    )


def _overloaded(residue: Residue) -> status_pb2.Status:
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        f"{residue.tool.service} has as many calls as it takes at once; try again in {RETRY_AFTER_S} s",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.ErrorInfo(
            reason="TOOL_OVERLOADED", domain=ERROR_DOMAIN, metadata={"service": residue.tool.service}
        ),
    )


def _cut(residue: Residue) -> status_pb2.Status:
    # No delay after which to try again: the tool may have done what it was asked.
    return _status(
        code_pb2.UNAVAILABLE,
        "the call was cut: the tool ended the connection",
        error_details_pb2.ErrorInfo(reason="CALL_CUT", domain=ERROR_DOMAIN, metadata={"service": residue.tool.service}),
    )


def _status(code: int, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed: Untyped = Any()
        packed.Pack(detail, deterministic=True)
        status.details.append(packed)
    return status
