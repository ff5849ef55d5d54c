"""Work that several callers need at once, and that is done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["Errand"]

T = TypeVar("T")


class Errand(Generic[T]):
    """One run at a time of some work, for all who ask; for the event loop that asks alone.

    Who asks has the result of a run that began no earlier, so it has seen all that was there by then; if one is under
    way, those who ask meanwhile share the next. Who gives up ends nothing: a run goes to its end, as a thread must
    anyway. What a run raises is raised to those who share it, and the next begins anew.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """work: is begun when somebody asks."""
        self._work = work
        self._last: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """What a run that begins now or later gives. Raises what it raises."""
        if before := self._last:
            await asyncio.wait((before,))
        running = self._last
        if running is None or running is before:
            running = self._last = asyncio.create_task(self._work())
        return await asyncio.shield(running)
