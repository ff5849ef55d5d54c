"""What callers may see and call of those that take a type: asked of the rules once, until these or the tools change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.catalog import Tool
from gateway.fanout.takers import Taker, Takers
from governance.words import Caller

__all__ = ["SeenTakers", "Sight"]

SeenTakers = Sequence[tuple[Taker, frozenset[str] | None]]
"""Each taker with the names of its tool's methods that the caller may call; None for a tool that they do not see."""

# Those kept first are forgotten first.
_KEPT = 1024


class Sight:
    """What each caller sees of the takers of a type."""

    def __init__(
        self,
        takers: Takers,
        sees: Callable[[Tool, Caller], frozenset[str] | None],
        *,
        rules: Callable[[], object],
    ) -> None:
        """sees: what a caller may call of a tool, as in SeenTakers.

        rules: the same object for as long as that stays so.
        """
        self._takers = takers
        self._sees = sees
        self._rules = rules
        self._kept: dict[tuple[Caller, str], tuple[Sequence[Taker], object, SeenTakers]] = {}

    def of(self, caller: Caller, request_type: str) -> SeenTakers:
        """What a caller sees of those that take a type, in order of their names."""
        takers, rules, key = self._takers.of(request_type), self._rules(), (caller, request_type)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is takers and kept[1] is rules:
            return kept[2]
        seen = [(taker, self._sees(taker.tool, caller)) for taker in takers]
        if takers:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (takers, rules, seen)
        return seen
