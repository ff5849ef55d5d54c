"""How many branches may be under way, and how much of their answers may be held: of one caller, one tool, and all."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, field

from llmesh.errors import OverQuota

__all__ = ["Room", "crowded"]

# Branches of one caller, until they have ended and been told.
OF_A_CALLER = 1024
# Branches to one tool until they have ended, those included that were given up; and of them, those of one caller.
OF_A_TOOL = 512
OF_BOTH = 128
# Requests of fan-outs that run, and answers of which their caller has not been told yet, or that are to be merged.
HELD_OF_A_CALLER_BYTES = 64 << 20
HELD_BYTES = 256 << 20
RETRY_AFTER_S = 1.0

# A key is there for as long as it counts something.
_Counts = dict[Hashable, int]


@dataclass(eq=False, slots=True)
class Room:
    """What fan-outs of this process take up."""

    held_bytes: int = 0
    _of_callers: _Counts = field(default_factory=_Counts)
    _of_tools: _Counts = field(default_factory=_Counts)
    _of_both: _Counts = field(default_factory=_Counts)
    _held: _Counts = field(default_factory=_Counts)

    def check(self, caller: Hashable, count: int) -> None:
        """Raise OverQuota if so many branches more would be more than a caller may have under way."""
        if self._of_callers.get(caller, 0) + count > OF_A_CALLER:
            raise _over(
                f"more than {OF_A_CALLER} branches of your fan-outs would be under way: wait until some have ended",
                "branches of a caller",
            )

    def enter(self, caller: Hashable, tool: str) -> None:
        """One branch more. Raises OverQuota if the caller, or the tool, has as many as it may."""
        self.check(caller, 1)
        both = caller, tool
        of_both, of_tool = self._of_both.get(both, 0), self._of_tools.get(tool, 0)
        if of_both >= OF_BOTH:
            raise _over(f"{OF_BOTH} branches of your fan-outs to `{tool}` are under way", "branches of a tool")
        if of_tool >= OF_A_TOOL:
            raise _over(f"{OF_A_TOOL} branches of fan-outs to `{tool}` are under way", "branches of a tool")
        self._of_callers[caller] = self._of_callers.get(caller, 0) + 1
        self._of_tools[tool], self._of_both[both] = of_tool + 1, of_both + 1

    def end(self, caller: Hashable, tool: str) -> None:
        """A branch has ended: the tool is rid of it."""
        _decrease(self._of_tools, tool)
        _decrease(self._of_both, (caller, tool))

    def leave(self, caller: Hashable) -> None:
        """A branch that has ended has been told, or is wanted no more."""
        _decrease(self._of_callers, caller)

    def hold(self, caller: Hashable, size: int) -> bool:
        """Whether so many bytes more may be held for a caller; if so, they are counted until they are let go.

        Nobody holds more than is left then for everybody else: however few read nothing, some room stays.
        """
        held = self._held.get(caller, 0) + size
        if held > min(HELD_OF_A_CALLER_BYTES, HELD_BYTES - self.held_bytes - size):
            return False
        self._held[caller] = held
        self.held_bytes += size
        return True

    @contextmanager
    def holding(self, caller: Hashable, size: int) -> Generator[None]:
        """Hold a request of so many bytes meanwhile. Raises OverQuota if it may not be held."""
        if not self.hold(caller, size):
            raise _over(
                "your fan-outs that run leave no room for this request: wait until some have ended", "requests held"
            )
        try:
            yield
        finally:
            self.let_go(caller, size)

    def let_go(self, caller: Hashable, size: int) -> None:
        """So many bytes are held no more."""
        self.held_bytes -= size
        _decrease(self._held, caller, size)


def crowded() -> OverQuota:
    """Why a branch ended whose answer there was no room to hold."""
    return _over("the answers that wait to be read have left no room for this one: read faster", "answers held")


def _over(message: str, quota: str) -> OverQuota:
    return OverQuota(message, retry_after_s=RETRY_AFTER_S, quota=quota)


def _decrease(counts: _Counts, key: Hashable, by: int = 1) -> None:
    left = counts.get(key, 0) - by
    assert left >= 0, "what was not counted is not let go"  # noqa: S101
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
