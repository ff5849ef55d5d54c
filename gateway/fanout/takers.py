"""Who takes a type: the methods on the mesh by the request that they take.

Found from the catalog's descriptors alone, where a full name means one thing
(gateway/discovery/admit.py): what a caller or a tool says of a type counts
for nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from gateway.catalog import Contract, Method, Tool
from gateway.reading.descriptors import make_pool

__all__ = ["Taker", "Takers", "Types"]

_CONTRACTS = 512


@dataclass(frozen=True, slots=True)
class Taker:
    """A method that takes one request of a type. name: as contracts have it, "acme.support.v1.Tickets/GetTicket"."""

    tool: Tool
    method: Method
    name: str


class Takers:
    """The methods of a catalog, by the type that they take."""

    def __init__(self, tools: Callable[[], Mapping[str, Tool]]) -> None:
        """tools: those of the newest catalog; the same object for as long as none of them changes."""
        self._tools = tools
        self._read: Mapping[str, Tool] | None = None
        self._takers: dict[str, list[Taker]] = {}

    def of(self, request_type: str) -> Sequence[Taker]:
        """Those that take one request of the type, in order of their names."""
        tools = self._tools()
        if self._read is not tools:
            self._read, self._takers = tools, _by_type(tools)
        return self._takers.get(request_type, ())


def _by_type(tools: Mapping[str, Tool]) -> dict[str, list[Taker]]:
    found: dict[str, list[Taker]] = {}
    for tool in tools.values():
        for method in tool.methods:
            if not method.client_streaming:
                taker = Taker(tool, method, f"{tool.service}/{method.name}")
                found.setdefault(method.request_type, []).append(taker)
    for takers in found.values():
        takers.sort(key=lambda taker: taker.name)
    return found


class Types:
    """The message types of contracts. Linked once for each contract; those used first are forgotten first."""

    def __init__(self) -> None:
        """Nothing is linked yet."""
        self._pools: dict[str, DescriptorPool] = {}

    def of(self, contract: Contract, name: str) -> type[Message]:
        """The type of that full name that a contract defines. Raises KeyError if it does not."""
        pool = self._pools.get(contract.digest)
        if pool is None:
            if len(self._pools) >= _CONTRACTS:
                del self._pools[next(iter(self._pools))]
            pool = self._pools[contract.digest] = make_pool(contract.files)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
