"""Methods that need a cluster of their own beside the tool's.

Where endpoints serve different contracts (docs/adr/007), a method goes only
where it exists: each set of endpoints that has some methods alone is a part.
A method whose contract limits its calls at once is one as well, since Envoy
counts these by cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.catalog import Endpoint, Method, Tool
from governance.contract.sheet import CONCURRENCY_DEFAULT

__all__ = ["Part", "concurrency_of", "is_part", "parts", "service_of"]

# Stands in no service's name.
SEPARATOR = "@"
DIGEST_LETTERS = 12
# Of a tool; further methods with limits share one cluster, and the smallest of their limits.
MAX_LIMITED = 32


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a tool's methods, and the endpoints that have them. name: of its cluster.

    max_concurrency: how many calls of these methods may be under way at once.
    """

    name: str
    methods: frozenset[str]
    endpoints: tuple[Endpoint, ...]
    max_concurrency: int = CONCURRENCY_DEFAULT


def parts(tool: Tool) -> tuple[Part, ...]:
    """The tool's parts: none where each endpoint has every method, and no method a limit of its own.

    A method in several of them goes by the last.
    """
    by_contract = tuple(_by_contract(tool)) if tool.variants else ()
    return (*by_contract, *_limited(tool, by_contract))


def concurrency_of(tool: Tool) -> int:
    """How many calls may be under way at once of the methods that need no part: those without a limit, if any."""
    limits = set(map(_limit, tool.methods)) or {CONCURRENCY_DEFAULT}
    return CONCURRENCY_DEFAULT if CONCURRENCY_DEFAULT in limits else max(limits)


def _by_contract(tool: Tool) -> Iterator[Part]:
    """Each contract adds to the next."""
    endpoints: tuple[Endpoint, ...] = ()
    for variant, smaller in zip(tool.variants, tool.variants[1:], strict=False):
        endpoints = tuple(sorted((*endpoints, *variant.endpoints)))
        added = variant.methods - smaller.methods
        if added:
            name = f"{tool.service}{SEPARATOR}{variant.contract.digest[:DIGEST_LETTERS]}"
            yield Part(name, added, endpoints)


def _limited(tool: Tool, by_contract: tuple[Part, ...]) -> Iterator[Part]:
    own = concurrency_of(tool)
    shared = [method.name for method in tool.methods if _limit(method) == own]
    if own < CONCURRENCY_DEFAULT:
        # A limit that is stated is one method's alone.
        shared = shared[:1]
    limited = [method for method in tool.methods if method.name not in shared]
    endpoints = {name: part.endpoints for part in by_contract for name in part.methods}
    for method in limited[:MAX_LIMITED]:
        name = f"{tool.service}{SEPARATOR}/{method.name}"
        yield Part(name, frozenset([method.name]), endpoints.get(method.name, tool.endpoints), _limit(method))
    rest = [method for method in limited[MAX_LIMITED:] if method.name not in endpoints]
    if rest:
        names = frozenset(method.name for method in rest)
        yield Part(f"{tool.service}{SEPARATOR}/", names, tool.endpoints, min(map(_limit, rest)))


def _limit(method: Method) -> int:
    return method.max_concurrency or CONCURRENCY_DEFAULT


def is_part(name: str) -> bool:
    """Whether a cluster's name is that of a part."""
    return SEPARATOR in name


def service_of(name: str) -> str:
    """The service whose cluster, or whose part's cluster, goes by a name."""
    return name.partition(SEPARATOR)[0]
