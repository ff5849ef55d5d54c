"""Fakes with the real interface."""

from __future__ import annotations

import asyncio


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def unix_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, span_s: float) -> None:
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + span_s, until))
        await until

    def stand_still(self, span_s: float) -> None:
        """Let the span pass while the whole process stands still: nobody is woken before it is over."""
        self._now_s += span_s

    async def pass_(self, span_s: float) -> None:
        """Let the span pass, and everyone act who waited for a moment within it."""
        end_s = self._now_s + span_s
        while due := [each for each in self._sleepers if each[0] <= end_s and not each[1].done()]:
            moment_s, until = min(due, key=lambda each: each[0])
            self._now_s = max(self._now_s, moment_s)
            until.set_result(None)
            await settle()
        self._now_s = end_s
        await settle()


async def settle() -> None:
    """Let every task run that can."""
    for _ in range(20):
        await asyncio.sleep(0)
