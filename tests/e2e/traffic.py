"""Calls that go on while a test changes the mesh below them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import grpc

# Patience, and no promise.
WAIT_S = 60.0
OK = "OK"


class Traffic:
    """Makes one call after another, several at once, for as long as the `async with` lasts."""

    def __init__(self, call: Callable[[], Awaitable[object]], *, at_once: int = 4) -> None:
        """Nothing is called yet. call: one call; a failed one raises grpc's own error."""
        # Code -> calls that ended so; the words of failures beside it.
        self.outcomes: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self._call = call
        self._at_once = at_once
        self._ended = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._going = True

    @property
    def failures(self) -> dict[str, int]:
        """What failed, by its code and words."""
        return dict(self.words)

    async def __aenter__(self) -> Self:
        """Start, and go on once some calls have been answered."""
        self._tasks = [asyncio.create_task(self._loop()) for _ in range(self._at_once)]
        await self.more(10)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the last calls end."""
        self._going = False
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Return once that many further calls have ended, however they did."""
        await self.until(self.outcomes.total() + count)

    async def until(self, total: int) -> None:
        """Return once so many calls have ended."""
        async with asyncio.timeout(WAIT_S), self._ended:
            await self._ended.wait_for(lambda: self.outcomes.total() >= total)

    async def _loop(self) -> None:
        while self._going:
            try:
                await self._call()
                outcome = OK
            except grpc.aio.AioRpcError as error:
                outcome = error.code().name
                self.words[f"{outcome}: {error.details()}"] += 1
            async with self._ended:
                self.outcomes[outcome] += 1
                self._ended.notify_all()
