"""Who makes a call, as the mesh derived it, and how that travels as metadata.

The mesh's edge removes every `x-llmesh-*` header a client sent and writes
its own. So whoever reads these headers must know that they came from the
mesh; the server is the one that decides this (see `llmesh._server`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "ACTING_KEY",
    "CALL_ID_KEY",
    "PROVENANCE_KEY",
    "Caller",
    "caller_from_metadata",
    "caller_to_metadata",
    "read_metadata",
]

CALL_ID_KEY = "x-llmesh-call-id"
PROVENANCE_KEY = "x-llmesh-provenance"
# With 1, 2 and so on behind it: the methods that act for the caller, by their paths, the first one called first.
# With 0, where the caller is a tool in its own right: the tool, as `/acme.support.v1.Tickets/`.
ACTING_KEY = "x-llmesh-acting-"
# What a header holds without loss: printable ASCII, the comma kept for lists.
_WORD = re.compile(r"[ -+\--~]*")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call. A field that nothing grants is empty.

    No subject: nobody signed in. actor: the tool that acts for the subject,
    empty if they call themselves.
    """

    issuer: str = ""
    subject: str = ""
    roles: tuple[str, ...] = ()
    domain: str = ""
    clearances: tuple[str, ...] = ()
    actor: str = ""


def caller_from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
    """The caller that the headers name; the anonymous one if they name none."""
    found = read_metadata(metadata)
    return Caller(
        issuer=found.get("x-llmesh-issuer", ""),
        subject=found.get("x-llmesh-subject", ""),
        roles=_split(found.get("x-llmesh-roles", "")),
        domain=found.get("x-llmesh-domain", ""),
        clearances=_split(found.get("x-llmesh-clearances", "")),
        actor=found.get("x-llmesh-actor", ""),
    )


def caller_to_metadata(caller: Caller) -> tuple[tuple[str, str], ...]:
    """The headers that name the caller, all of them, empty ones too.

    Raises ValueError if a field holds what a header cannot: anything but
    printable ASCII, or a comma.
    """
    fields = {
        "x-llmesh-issuer": (caller.issuer,),
        "x-llmesh-subject": (caller.subject,),
        "x-llmesh-domain": (caller.domain,),
        "x-llmesh-roles": caller.roles,
        "x-llmesh-clearances": caller.clearances,
        "x-llmesh-actor": (caller.actor,),
    }
    for key, words in fields.items():
        for word in words:
            if not _WORD.fullmatch(word):
                message = f"`{word}` cannot be sent as {key}: only printable ASCII without commas can"
                raise ValueError(message)
    return tuple((key, ",".join(words)) for key, words in fields.items())


def read_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The text headers by key; of a key that comes twice, the first, and of bytes none."""
    found: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str):
            found.setdefault(key, value)
    return found


def _split(value: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in value.split(",")) if word)
