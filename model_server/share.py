"""How much of what all callers share one of them may keep: whoever asks for more leaves the others served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from llmesh.errors import OverQuota

__all__ = ["Share"]

RETRY_FULL_S = 1.0


class Share:
    """Room for so much at once, of which one caller has half at most."""

    def __init__(self, most: int, what: str) -> None:
        """most: what there is room for, of all callers. what: it is, in the plural, for those who are refused."""
        self._most = most
        self._what = what
        self._taken = Counter[str]()

    @contextmanager
    def take(self, caller: str, count: int = 1) -> Generator[None]:
        """Keep room for the caller while entered. Raises OverQuota if there is not enough, or they have their half."""
        if self._taken[caller] + count > (self._most + 1) // 2:
            raise _full(f"too many {self._what} of yours wait for the model")
        if self._taken.total() + count > self._most:
            raise _full(f"too many {self._what} wait for the model")
        self._taken[caller] += count
        try:
            yield
        finally:
            self._taken[caller] -= count
            if not self._taken[caller]:
                del self._taken[caller]


def _full(words: str) -> OverQuota:
    return OverQuota(words, retry_after_s=RETRY_FULL_S, quota="queue", reason="QUEUE_FULL")
