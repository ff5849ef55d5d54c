"""What a refused caller reads, composed when the snapshot is built.

Metadata of a tool's virtual host and of its routes maps Envoy's response code
details to a message and to a serialised google.rpc.Status; a static
local-reply mapper (listener/replies.py) returns both, so a refusal costs no
Python. The Status repeats code and message, as gRPC clients check that they
agree.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any as Untyped

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.blocks.words import Block
from governance.decide import no_rule_permits
from governance.delegation import MAX_TEXT_BYTES
from governance.residue import Residue

# Names of the metadata.
DETAILS = "llmesh.refusal.details"
MESSAGE = "llmesh.refusal.message"
UNAVAILABLE = "unavailable"
OVERLOADED = "overloaded"
CUT = "cut"
# What Envoy says itself of messages that are larger than it can hold.
REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE = "request_payload_too_large", "response_payload_too_large"
RETRY_AFTER_S = 1
ERROR_DOMAIN = "llmesh"
# What to do about a token that is not believed.
SEND_ANOTHER = "; send `authorization: Bearer TOKEN`, with a token of an issuer that the mesh believes"


def tool_metadata(service: str) -> dict[str, dict[str, str]]:
    """What all of a tool's routes share: metadata name -> fields, all text."""
    return _metadata({UNAVAILABLE: _unavailable(service), OVERLOADED: _overloaded(service), CUT: _cut(service)})


def route_metadata(residue: Residue, *, sizes: tuple[int, int] = (0, 0)) -> dict[str, dict[str, str]]:
    """What the rules give one method, and its sizes: most bytes of a request and of a response, 0 for no limit.

    A hidden tool's has no refusals by rule: it looks like no tool.
    """
    statuses: dict[str, status_pb2.Status] = {}
    request, response = sizes
    if request:
        statuses[REQUEST_TOO_LARGE] = request_too_large(residue.tool.path, request)
    if response:
        statuses[RESPONSE_TOO_LARGE] = response_too_large(residue.tool.path, response)
    if not residue.tool.hidden:
        statuses |= {matched(clause.rule): _denied(residue, clause.rule, clause.reason) for clause in residue.forbids}
        statuses[matched("none")] = _denied(residue, "", no_rule_permits(residue))
    return _metadata(statuses) if statuses else {}


def _metadata(statuses: Mapping[str, status_pb2.Status]) -> dict[str, dict[str, str]]:
    return {
        DETAILS: {key: encoded(status) for key, status in statuses.items()},
        MESSAGE: {key: status.message for key, status in statuses.items()},
    }


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


def unbelieved(reason: str, message: str) -> status_pb2.Status:
    """What is told of a token that is not believed."""
    return _status(code_pb2.UNAUTHENTICATED, message, error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))


def over_quota(quota: str, calls_per_s: int) -> status_pb2.Status:
    """What a caller reads who calls too often. The rate refills evenly, so that after a second there is one more."""
    facts = {"quota": quota, "calls_per_s": str(calls_per_s)}
    message = f"more than {calls_per_s} calls in a second (quota `{quota}`); try again in {RETRY_AFTER_S} s"
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        message,
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.QuotaFailure(
            violations=[error_details_pb2.QuotaFailure.Violation(subject=quota, description=message)]
        ),
        error_details_pb2.ErrorInfo(reason="OVER_QUOTA", domain=ERROR_DOMAIN, metadata=facts),
    )


def blocked(block: Block, as_what: str = "") -> status_pb2.Status:
    """What whoever is stopped by a block reads. as_what: what the target is to the call, if not what is called."""
    info = block_info(block)
    what = " ".join(filter(None, (str(block.target), as_what)))
    until = f" until {info.metadata['until']}" if "until" in info.metadata else ""
    return _status(code_pb2.PERMISSION_DENIED, f"{what} is blocked{until}: {info.metadata['reason']}", info)


def block_info(block: Block) -> error_details_pb2.ErrorInfo:
    """The facts of a block, for programs."""
    facts = {"block": block.id, "reason": _shortened(block.reason)}
    if block.until_us is not None:
        facts["until"] = datetime.fromtimestamp(block.until_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return error_details_pb2.ErrorInfo(reason="BLOCKED", domain=ERROR_DOMAIN, metadata=facts)


def block_of(text: str) -> str:
    """The id of the block of which an encoded status tells; empty where it tells of none."""
    try:
        status = status_pb2.Status.FromString(base64.b64decode(text, validate=True))
        info = error_details_pb2.ErrorInfo()
        told = any(detail.Unpack(info) for detail in status.details)
    except (ValueError, DecodeError):
        return ""
    return info.metadata["block"] if told else ""


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


def request_too_large(path: str, most: int) -> status_pb2.Status:
    """What a caller reads whose request has more bytes than the contract of the method at a path says."""
    words = f"the request has more than {most} bytes, which is the most that {path.removeprefix('/')} takes"
    return _too_large(code_pb2.INVALID_ARGUMENT, words, "REQUEST_TOO_LARGE", most)


def response_too_large(path: str, most: int) -> status_pb2.Status:
    """What a caller reads where the tool's response has more."""
    words = f"the response has more than {most} bytes, which is the most that {path.removeprefix('/')} gives"
    return _too_large(code_pb2.INTERNAL, words, "RESPONSE_TOO_LARGE", most)


def _too_large(code: int, words: str, reason: str, most: int) -> status_pb2.Status:
    # As the SDK says it, which holds streams to their sizes.
    facts = {"max_bytes": str(most)}
    return _status(code, words, error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=facts))


def _unavailable(service: str) -> status_pb2.Status:
    return _status(
        code_pb2.UNAVAILABLE,
        f"no endpoint of {service} answers; try again in {RETRY_AFTER_S} s",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.ErrorInfo(reason="TOOL_DOWN", domain=ERROR_DOMAIN, metadata={"service": service}),
    )


def _overloaded(service: str) -> status_pb2.Status:
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        f"{service} has as many such calls as it takes at once; try again in {RETRY_AFTER_S} s",
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)),
        error_details_pb2.ErrorInfo(reason="TOOL_OVERLOADED", domain=ERROR_DOMAIN, metadata={"service": service}),
    )


def _cut(service: str) -> status_pb2.Status:
    # No delay after which to try again: the tool may have done what it was asked.
    return _status(
        code_pb2.UNAVAILABLE,
        "the call was cut: the tool ended the connection",
        error_details_pb2.ErrorInfo(reason="CALL_CUT", domain=ERROR_DOMAIN, metadata={"service": service}),
    )


def _status(code: int, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed: Untyped = Any()
        packed.Pack(detail, deterministic=True)
        status.details.append(packed)
    return status
