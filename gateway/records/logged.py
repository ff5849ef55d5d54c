"""One line of the call log, as what it tells of a call. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any as Untyped

from google.rpc import code_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.listener.call_log import START
from gateway.listener.edge import POLICIES
from gateway.listener.quotas import DETAILS as OVER_QUOTA
from gateway.snapshot import refusals
from gateway.snapshot.blocks import BLOCKED
from governance.words import Caller
from llmesh.api.records.v1 import records_pb2 as pb

__all__ = ["DELEGATION", "Logged", "Outcome", "UnreadableLineError", "read_line"]


class Outcome(IntEnum):
    """What the mesh decided; the numbers are those of records.proto."""

    ALLOWED = pb.OUTCOME_ALLOWED
    DENIED = pb.OUTCOME_DENIED
    UNAUTHENTICATED = pb.OUTCOME_UNAUTHENTICATED
    BLOCKED = pb.OUTCOME_BLOCKED
    LIMITED = pb.OUTCOME_LIMITED
    UNKNOWN_METHOD = pb.OUTCOME_UNKNOWN_METHOD
    MALFORMED = pb.OUTCOME_MALFORMED


class UnreadableLineError(Exception):
    """A line that is none of the call log's."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What the call log tells of a call. start: of its start, where code, latency_ms and bytes are 0.

    call_id: empty for what was refused before it had one. time_us: Unix
    microseconds. contract: digest; empty where no route fits. rule: what
    refused it, "block/ID" for a block; empty for a call that no rule permits,
    and for one that was let through. code: google.rpc.Code. details: Envoy's
    words, without addresses; empty where the tool ended it, or outcome and
    rule say it all. address: where from, to be judged by; not kept.
    """

    call_id: str
    start: bool
    time_us: int
    parent: str
    trace_id: str
    caller: Caller
    service: str
    method: str
    contract: str
    outcome: Outcome
    rule: str
    code: int
    details: str
    latency_ms: int
    bytes_in: int
    bytes_out: int
    provenance: str
    address: str = ""


def read_line(line: bytes) -> Logged:
    """What a line tells. Raises UnreadableLineError for what Envoy never writes whole."""
    try:
        fields: Untyped = json.loads(line, object_hook=_clean if b"\\u" in line else None)
        return _logged(fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise UnreadableLineError from err


def _clean(fields: dict[str, Untyped]) -> dict[str, Untyped]:
    """Without what no database takes: half characters, and NUL."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return fields | {name: _usable(text) for name, text in texts.items()}


def _usable(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\0", "?")


def _logged(fields: Mapping[str, Untyped]) -> Logged:
    """Raises LookupError, TypeError or ValueError for fields that are missing or of another type."""
    service, _, method = (fields["path"] or "").removeprefix("/").partition("/")
    caller = _caller(tuple(fields[name] or "" for name in _WHO))
    contract = fields["contract"] or ""
    start = fields.get("phase") == START
    details = "" if start else fields["details"] or ""
    code = code_pb2.OK if start else _code(fields["code"], fields["flags"])
    outcome = Outcome.ALLOWED if start else _outcome(caller.subject, contract, details, code)
    return Logged(
        call_id=fields["call_id"] or "",
        start=start,
        time_us=_unix_us(fields["time"]),
        parent=fields["parent"] or "",
        trace_id=fields.get("trace_id") or "",
        caller=caller,
        service=service,
        method=method,
        contract=contract,
        outcome=outcome,
        rule="" if outcome is Outcome.ALLOWED else _rule(outcome, details, fields.get("block") or ""),
        code=code,
        details=_without_addresses(details),
        latency_ms=0 if start else int(fields["duration_ms"]),
        bytes_in=0 if start else int(fields["bytes_in"]),
        bytes_out=0 if start else int(fields["bytes_out"]),
        provenance="" if start else fields["provenance"] or fields["provenance_of_error"] or "",
        address=fields["address"] or "",
    )


_WHO = ("issuer", "caller", "roles", "domain", "clearances", "actor")


@functools.lru_cache(maxsize=10_000)
def _caller(who: tuple[str, ...]) -> Caller:
    # The same object for the same caller: judging looks them up.
    issuer, subject, roles, domain, clearances, actor = who
    return Caller(issuer, subject, _list(roles), domain, _list(clearances), actor)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _unix_us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MATCHED = "rbac_access_denied_matched_policy["
_NO_TOKEN = "jwt_authn_access_denied"  # noqa: S105 Envoy's word
# What Envoy says of an answer that one of our scripts gave: caller.lua, delegation.lua, floods.lua or sizes.lua.
_SCRIPT = "lua_response"
_BY_SCRIPT: Mapping[int, Outcome] = {
    code_pb2.PERMISSION_DENIED: Outcome.DENIED,
    code_pb2.UNAUTHENTICATED: Outcome.UNAUTHENTICATED,
    code_pb2.RESOURCE_EXHAUSTED: Outcome.LIMITED,
    # A message that is larger than its contract says.
    code_pb2.INVALID_ARGUMENT: Outcome.LIMITED,
}
# Stands in the place of a rule for a call that a tool may not make for its caller.
DELEGATION = "delegation"
# Each stands at the beginning of Envoy's words for a limit that was reached.
_LIMITS = (
    OVER_QUOTA,
    "request_payload_too_large",
    "request_payload_exceeded_limit",
    "upstream_reset_before_response_started{overflow",
)


def _rule(outcome: Outcome, details: str, block: str) -> str:
    if details == _SCRIPT and outcome is Outcome.DENIED:
        return DELEGATION
    return _block(block) if outcome is Outcome.BLOCKED else _denied_by(details)


@functools.lru_cache(maxsize=1_000)
def _block(status: str) -> str:
    """As rules are named, the block whose status the filter wrote; empty where it wrote none."""
    found = refusals.block_of(status)
    return f"block/{found}" if found else ""


def _denied_by(details: str) -> str:
    """The policy that refused, of Envoy's words; empty where there is none or it has no name."""
    if not details.startswith(_MATCHED):
        return ""
    policy = details.removeprefix(_MATCHED).removesuffix("]")
    return "" if policy == "none" else policy


def _outcome(subject: str, contract: str, details: str, code: int) -> Outcome:
    if details == _SCRIPT:
        return _BY_SCRIPT.get(code, Outcome.MALFORMED)
    if details.startswith(_LIMITS):
        return Outcome.LIMITED
    if details.startswith(_MATCHED):
        return _refused(contract, _denied_by(details))
    if details.startswith(_NO_TOKEN):
        return Outcome.UNAUTHENTICATED
    if not contract:
        return Outcome.UNKNOWN_METHOD if subject else Outcome.MALFORMED
    # Whoever left before it was known who called was let through nowhere.
    return Outcome.ALLOWED if subject else Outcome.UNAUTHENTICATED


def _refused(contract: str, policy: str) -> Outcome:
    if policy in POLICIES:
        return Outcome.MALFORMED
    if policy == BLOCKED:
        return Outcome.BLOCKED
    return Outcome.DENIED if contract else Outcome.UNKNOWN_METHOD


# Envoy's names of the codes: "PermissionDenied" for PERMISSION_DENIED.
_CODES = {
    **{name.title().replace("_", ""): number for name, number in code_pb2.Code.items()},
    "OK": code_pb2.OK,
    "Canceled": code_pb2.CANCELLED,
}
_LEFT = "DR"


def _code(name: str | None, flags: str | None) -> int:
    """How the call ended. A caller that has left was told nothing, whatever Envoy would have."""
    if flags and _LEFT in flags.split(","):
        return code_pb2.CANCELLED
    return _CODES.get(name or "", code_pb2.UNKNOWN)


def _without_addresses(details: str) -> str:
    """Why Envoy ended it. After the first bar come addresses and the words of sockets."""
    if details == "via_upstream" or details.startswith((_MATCHED, _SCRIPT)):
        return ""
    kept, bar, _ = details.partition("|")
    return f"{kept}}}" if bar else kept
