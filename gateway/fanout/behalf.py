"""Whom a fan-out is made for, and what its branches bring to Envoy to be made for them too."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any as Untyped

from gateway.fanout.legs import Metadata
from gateway.snapshot.caller import DELEGATION
from gateway.snapshot.delegate import TIMEOUT
from gateway.snapshot.fanout import ADDRESS, DELEGATED
from governance.delegation import Delegation
from governance.words import Caller
from llmesh.caller import read_metadata

__all__ = ["Behalf", "Mint", "behalf_of"]

Mint = Callable[[Delegation], str]
"""Writes a token that says so."""

# Envoy reads a token for each branch: one that named all branches of a large fan-out would be most of what it does.
METHODS_A_TOKEN = 8
FORWARDED_FOR = "x-forwarded-for"
_TRACE = ("traceparent", "tracestate")
_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Behalf:
    """Whom a call of a fan-out is made for.

    caller: with its actor, if a tool acts for it. path: the methods that act for it. given: paths of the methods that
    the last of them may call; None for a caller that acts alone and may call what the rules permit. ends_s: when that
    ends, Unix seconds; None for the same. address: the caller's own.
    """

    caller: Caller
    call_id: str
    address: str
    trace: tuple[tuple[str, str], ...]
    path: tuple[str, ...] = ()
    given: frozenset[str] | None = None
    ends_s: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Whose fan-outs these are, however many tools act for them."""
        return self.caller.issuer, self.caller.subject

    def may_call(self, name: str) -> bool:
        """Whether the call lets its caller call a method at all: "acme.support.v1.Tickets/GetTicket"."""
        return self.given is None or f"/{name}" in self.given

    def metadata(self, paths: Sequence[str], mint: Mint, *, timeout_s: float, now_s: float) -> Mapping[str, Metadata]:
        """What goes with a branch, by its path. now_s: Unix seconds."""
        # gRPC's own timer would break off what Envoy ends by itself (allowances.py).
        common = ((TIMEOUT, f"{math.ceil(timeout_s * 1000)}m"), (FORWARDED_FOR, self.address), *self.trace)
        found: dict[str, Metadata] = {}
        for at in range(0, len(paths), METHODS_A_TOKEN):
            some = paths[at : at + METHODS_A_TOKEN]
            token = mint(self._delegation(some, now_s + timeout_s))
            found.update(dict.fromkeys(some, Metadata(((DELEGATION, token), *common))))
        return found

    def _delegation(self, paths: Sequence[str], ends_s: float) -> Delegation:
        return Delegation(
            replace(self.caller, actor=""),
            path=self.path,
            methods=tuple(paths),
            parent=self.call_id,
            expires_s=math.ceil(ends_s) if self.ends_s is None else min(math.ceil(ends_s), self.ends_s),
        )


def behalf_of(caller: Caller, call_id: str, metadata: Iterable[tuple[str, str | bytes]]) -> Behalf:
    """Whom a call is made for, by what Envoy says of it."""
    told = read_metadata(metadata)
    # Others are no trace's, and nothing that a header may hold.
    trace = tuple((key, told[key]) for key in _TRACE if key in told and _VALUE.fullmatch(told[key]))
    made = Behalf(caller, call_id, told.get(ADDRESS, ""), trace)
    payload = told.get(DELEGATED, "")
    if not payload:
        return made
    claims: Mapping[str, Untyped] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return replace(made, path=tuple(claims["path"]), given=frozenset(claims["methods"]), ends_s=claims["exp"])
