"""Methods that only some of a tool's endpoints have.

Where endpoints serve different contracts (docs/adr/007), a method goes only
where it exists: each set of endpoints that has some methods alone is a cluster
of its own beside the tool's, which has all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.catalog import Endpoint, Tool

__all__ = ["Part", "part_names", "parts", "service_of"]

# Stands in no service's name.
SEPARATOR = "@"
DIGEST_LETTERS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """The endpoints that have some methods which others lack. name: of its cluster."""

    name: str
    methods: frozenset[str]
    endpoints: tuple[Endpoint, ...]


def parts(tool: Tool) -> tuple[Part, ...]:
    """The tool's parts; empty where each endpoint has every method. Each contract adds to the next."""
    found: list[Part] = []
    endpoints: tuple[Endpoint, ...] = ()
    for variant, smaller in zip(tool.variants, tool.variants[1:], strict=False):
        endpoints = tuple(sorted((*endpoints, *variant.endpoints)))
        added = variant.methods - smaller.methods
        if added:
            name = f"{tool.service}{SEPARATOR}{variant.contract.digest[:DIGEST_LETTERS]}"
            found.append(Part(name, added, endpoints))
    return tuple(found)


def part_names(tool: Tool) -> Iterable[str]:
    """Names of the tool's parts."""
    return (part.name for part in parts(tool)) if tool.variants else ()


def service_of(name: str) -> str:
    """The service whose cluster, or whose part's cluster, goes by a name."""
    return name.partition(SEPARATOR)[0]
