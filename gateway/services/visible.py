"""What each caller sees of the catalog: the one place that decides it.

Catalog, search, reflection and health all read the catalog through View, so
none of them can show what another hides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from gateway.blocks.words import Block
from gateway.catalog import Catalog, CatalogBoard, Tool
from governance.words import Caller

Permitted = Callable[[Tool, Caller], frozenset[str]]
"""Names of the tool's methods that some request of the caller could be permitted."""


Blocked = Callable[[Tool], Mapping[str, Block]]
"""What stops a tool: its methods' blocks by their names; under an empty one the tool's own, or its domain's."""


def _nothing(_tool: Tool) -> Mapping[str, Block]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Seen:
    """A tool as one caller sees it. permitted: names of its methods, never empty. blocked: as Blocked has it."""

    tool: Tool
    permitted: frozenset[str]
    blocked: Mapping[str, Block] = field(default_factory=lambda: MappingProxyType({}))


class View:
    """The newest catalog, the gateway's own tools included, through a caller's eyes.

    Safe to share: it holds nothing of any caller.
    """

    def __init__(
        self, board: CatalogBoard, permitted: Permitted, *, own: tuple[Tool, ...] = (), blocked: Blocked = _nothing
    ) -> None:
        """Tools of `own` stand in every catalog, before any posted one of the same name."""
        self._blocked = blocked
        self._board = board
        self._permitted = permitted
        self._own = {tool.service: tool for tool in own}
        self._whole = self._with_own(board.current)

    @property
    def own(self) -> frozenset[str]:
        """Names of the gateway's own tools."""
        return frozenset(self._own)

    @property
    def catalog(self) -> Catalog:
        """The newest catalog, unfiltered; its tools are in order of their names."""
        current = self._board.current
        if current.version != self._whole.version:
            self._whole = self._with_own(current)
        return self._whole

    def see(self, tool: Tool | None, caller: Caller) -> Seen | None:
        """The tool as the caller sees it; None if it is None or not visible.

        Visible is a tool of which some request of the caller could be
        permitted; not knowing counts as maybe.
        """
        names = self._permitted(tool, caller) if tool is not None else frozenset[str]()
        return Seen(tool, names, self._blocked(tool)) if tool is not None and names else None

    def permitted(self, tool: Tool, caller: Caller) -> frozenset[str] | None:
        """Names of the methods that the caller may call; None if the tool is not visible."""
        seen = self.see(tool, caller)
        return seen.permitted if seen else None

    def tool(self, service: str, caller: Caller) -> Seen | None:
        """The tool of that name; None if there is none that the caller may see."""
        return self.see(self.catalog.tools.get(service), caller)

    def tools(self, caller: Caller, *, after: str = "") -> Iterator[Seen]:
        """Every tool the caller may see, in order of names, from the first after `after`."""
        for service, tool in self.catalog.tools.items():
            if service > after and (seen := self.see(tool, caller)):
                yield seen

    async def changes(self) -> AsyncIterator[Catalog]:
        """The newest catalog, then each newer one; a slow reader skips to the newest."""
        async for _ in self._board.watch():
            yield self.catalog

    def _with_own(self, catalog: Catalog) -> Catalog:
        tools = {**catalog.tools, **self._own}
        return replace(catalog, tools=MappingProxyType(dict(sorted(tools.items()))))
