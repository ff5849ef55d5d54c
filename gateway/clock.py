"""Time as the gateway's parts take it, so that tests own it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time and waits."""

    def unix_s(self) -> float:
        """Seconds since 1970, for people to read."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only grow, for spans."""
        ...

    async def sleep(self, span_s: float) -> None:
        """Return when the span has passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def unix_s(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since some moment before this process began."""
        return time.monotonic()

    async def sleep(self, span_s: float) -> None:
        """Wait, as asyncio does."""
        await asyncio.sleep(span_s)
