"""Callers have their work done in turn, so that nobody waits for all that another has brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

__all__ = ["InTurn", "Turns"]

Given = ParamSpec("Given")
T = TypeVar("T")


class Turns:
    """A turn for each caller: a lock, which all that they have done takes."""

    def __init__(self) -> None:
        """Of nobody yet."""
        # Of callers who have something done, or wait for it.
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    def of(self, caller: str) -> asyncio.Lock:
        """Theirs."""
        return self._locks.setdefault(caller, asyncio.Lock())


class InTurn:
    """One thread, which begins when there is work, and lives until closed or as long as this process."""

    def __init__(self, name: str) -> None:
        """name: the thread's."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turns = Turns()

    async def run(self, caller: str, work: Callable[Given, T], *args: Given.args, **kwargs: Given.kwargs) -> T:
        """What the work gives. Before it comes one thing of each other caller, and what has begun.

        Who leaves ends nothing that has begun: a thread can't be broken off.
        """
        async with self._turns.of(caller):
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    async def close(self) -> None:
        """End the thread, once it has done what it is at; the rest is cancelled."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
