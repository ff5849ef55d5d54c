"""Delegation: what a tool may call for its caller, for how long, and who is behind it.

The gateway writes a delegation into a token as claims; Envoy reads them back.
`derive` and `refusal` say what becomes of a call that brings such a token; the
gateway's delegation.lua does the same in Envoy: keep the two alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from governance.words import Caller

__all__ = [
    "AUDIENCE",
    "FAN_OUT",
    "ISSUER",
    "MAX_HOPS",
    "MAX_TEXT_BYTES",
    "Delegation",
    "Refused",
    "derive",
    "refusal",
    "service_of",
    "tool_itself",
]

# The mesh, as the one that vouches for its tools: no issuer of issuers.yaml may have the name.
ISSUER = "llmesh"
AUDIENCE = "llmesh"
# Tools that may stand between a caller and a call.
MAX_HOPS = 5
# What makes calls that no tool acts in.
FAN_OUT = "/llmesh.api.mesh.v1.MeshService/FanOut"
# Of a refusal: a gRPC client takes 8 KiB of headers for certain, and the text stands in them three times,
# percent-encoded and twice in base64.
MAX_TEXT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Delegation:
    """What one call may hand on.

    caller: who is behind it all, without an actor. path: the methods that act
    for the caller, by their paths, the first one called first; empty where the
    caller acts alone, in a fan-out or as a tool in its own right. methods: paths
    of what the last of them may call. parent: id of the call to that one, empty
    for a tool in its own right. expires_s: Unix seconds, whole. absent: paths of
    what it would call, and the mesh has not got, as far as it may know.
    """

    caller: Caller
    path: tuple[str, ...]
    methods: tuple[str, ...]
    parent: str
    expires_s: int
    absent: tuple[str, ...] = ()

    def claims(self) -> dict[str, object]:
        """The claims of its token."""
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": self.expires_s,
            "sub": self.caller.subject,
            "issuer": self.caller.issuer,
            "roles": list(self.caller.roles),
            "domain": self.caller.domain,
            "clearances": list(self.caller.clearances),
            "path": list(self.path),
            "methods": list(self.methods),
            "parent": self.parent,
            **({"absent": list(self.absent)} if self.absent else {}),
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a delegated call is refused. reason: UPPER_SNAKE, stable. message: for people."""

    reason: str
    message: str


def derive(claims: Mapping[str, object]) -> Caller:
    """The caller that a delegation's claims make: the one behind it all, with the tool as the actor."""
    return Caller(
        issuer=str(claims["issuer"]),
        subject=str(claims["sub"]),
        roles=_texts(claims["roles"]),
        domain=str(claims["domain"]),
        clearances=_texts(claims["clearances"]),
        actor="".join(map(service_of, _texts(claims["path"])[-1:])),
    )


def refusal(claims: Mapping[str, object], method: str) -> Refused | None:
    """Why a call of the method (its path) with these claims is refused whatever the rules say; None if it isn't."""
    path = _texts(claims["path"])
    if method in path:
        return _refused("DELEGATION_LOOP", f"{_chain(*path, method)}: a loop; no method is called again for itself")
    if len(path) > MAX_HOPS:
        return _refused(
            "TOO_MANY_HOPS", f"{_chain(*path, method)}: between a caller and a call stand at most {MAX_HOPS} tools"
        )
    if method not in _texts(claims["methods"]):
        why = "its contract must list that under `uses`, and the rules must permit it to the tool itself"
        if method in _texts(claims.get("absent", ())):
            why = "it is not on the mesh"
        return _refused("NOT_DELEGATED", f"{_who_calls(claims, method)}: {why}")
    return None


def tool_itself(service: str, domain: str) -> Caller:
    """The tool as a caller in its own right: what it is not permitted, it may call for nobody."""
    return Caller(issuer=ISSUER, subject=service, domain=domain)


def service_of(path: str) -> str:
    """The service of a method's path: "acme.support.v1.Tickets" of "/acme.support.v1.Tickets/Suggest"."""
    return path[1:].partition("/")[0]


def _who_calls(claims: Mapping[str, object], method: str) -> str:
    path = _texts(claims["path"])
    if not path and claims["issuer"] == ISSUER:
        return f"{claims['sub']} may not call {method[1:]} in its own right"
    return f"{(path or (FAN_OUT,))[-1][1:]} may not call {method[1:]} for its caller"


def _chain(*path: str) -> str:
    return " -> ".join(method[1:] for method in path)


def _refused(reason: str, message: str) -> Refused:
    # A path may hold any byte, and the text travels as a header.
    plain = re.sub(rb"[^ -~]", b"?", message.encode(errors="surrogateescape"))
    return Refused(reason, plain[:MAX_TEXT_BYTES].decode())


def _texts(value: object) -> tuple[str, ...]:
    return tuple(cast("Sequence[str]", value))
