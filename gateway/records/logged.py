"""One line of the call log, as what it tells of a call. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any as Untyped
from typing import NamedTuple

import msgspec
from google.rpc import code_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.listener.call_log import START
from gateway.listener.edge import POLICIES
from gateway.listener.quotas import DETAILS as OVER_QUOTA
from gateway.snapshot import refusals
from gateway.snapshot.blocks import BLOCKED
from governance.words import Caller
from llmesh.api.records.v1 import records_pb2 as pb

__all__ = ["CASES", "DELEGATION", "Case", "Logged", "Outcome", "UnreadableLineError", "read_line"]

# Remembered at once: about 1 KB each.
CASES = 10_000


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


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What calls that are alike have in common: the same object for all of them, as far as it is remembered.

    start: of a call's start, where code is 0. contract: digest; empty where no
    route fits. rule: what refused it, "block/ID" for a block; empty for a call
    that no rule permits, and for one that was let through. code:
    google.rpc.Code. details: Envoy's words, without addresses; empty where the
    tool ended it, or outcome and rule say it all. address: where from, to be
    judged by; not kept.
    """

    start: bool
    caller: Caller
    service: str
    method: str
    contract: str
    outcome: Outcome
    rule: str
    code: int
    details: str
    address: str = ""


class Logged(NamedTuple):
    """What the call log tells of a call.

    call_id: empty for what was refused before it had one. time_us: Unix
    microseconds. Latency and bytes are 0 where it tells of a start.
    """

    case: Case
    call_id: str
    time_us: int
    parent: str
    trace_id: str
    latency_ms: int
    bytes_in: int
    bytes_out: int
    provenance: str


class _Line(msgspec.Struct, gc=False):
    """The fields that Envoy writes (gateway/listener/call_log.py); those with a default not in each line."""

    time: str
    call_id: str | None
    path: str | None
    issuer: str | None
    caller: str | None
    roles: str | None
    domain: str | None
    clearances: str | None
    actor: str | None
    parent: str | None
    contract: str | None
    address: str | None
    trace_id: str | None = None
    phase: str | None = None
    block: str | None = None
    code: str | None = None
    details: str | None = None
    flags: str | None = None
    duration_ms: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    provenance: str | None = None
    provenance_of_error: str | None = None


_DECODER = msgspec.json.Decoder(_Line)


def read_line(line: bytes) -> Logged:
    """What a line tells. Raises UnreadableLineError for what Envoy never writes whole."""
    try:
        return _logged(_odd(line) if b"\\u" in line else _DECODER.decode(line))
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise UnreadableLineError from err


def _odd(line: bytes) -> _Line:
    """Of a line with characters that are written by their numbers. Raises MsgspecError or ValueError."""
    return msgspec.convert(json.loads(line, object_hook=_clean), _Line)


def _clean(fields: dict[str, Untyped]) -> dict[str, Untyped]:
    """Without what no database takes: half characters, and NUL."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return fields | {name: _usable(text) for name, text in texts.items()}


def _usable(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\0", "?")


def _logged(line: _Line) -> Logged:
    """Raises ValueError for a time that is none."""
    who = (line.issuer, line.caller, line.roles, line.domain, line.clearances, line.actor)
    case = _case(
        *who, line.path, line.contract, line.address, line.code, line.details, line.flags, line.phase, line.block
    )
    return Logged(
        case,
        line.call_id or "",
        round(datetime.fromisoformat(line.time).timestamp() * 1e6),
        line.parent or "",
        line.trace_id or "",
        line.duration_ms,
        line.bytes_in,
        line.bytes_out,
        line.provenance or line.provenance_of_error or "",
    )


@functools.lru_cache(maxsize=CASES)
def _case(*told: str | None) -> Case:
    texts = [text or "" for text in told]
    issuer, subject, roles, domain, clearances, actor, path, contract, address, code, details, flags, phase, block = (
        texts
    )
    service, _, method = path.removeprefix("/").partition("/")
    start = phase == START
    ended = code_pb2.OK if start else _code(code, flags)
    outcome = Outcome.ALLOWED if start else _outcome(subject, contract, details, ended)
    return Case(
        start=start,
        caller=Caller(issuer, subject, _list(roles), domain, _list(clearances), actor),
        service=service,
        method=method,
        contract=contract,
        outcome=outcome,
        rule="" if outcome is Outcome.ALLOWED else _rule(outcome, details, block),
        code=ended,
        details=_without_addresses(details),
        address=address,
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


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


def _code(name: str, flags: str) -> int:
    """How the call ended. A caller that has left was told nothing, whatever Envoy would have."""
    return code_pb2.CANCELLED if _LEFT in flags.split(",") else _CODES.get(name, code_pb2.UNKNOWN)


def _without_addresses(details: str) -> str:
    """Why Envoy ended it. After the first bar come addresses and the words of sockets."""
    if details == "via_upstream" or details.startswith((_MATCHED, _SCRIPT)):
        return ""
    kept, bar, _ = details.partition("|")
    return f"{kept}}}" if bar else kept
