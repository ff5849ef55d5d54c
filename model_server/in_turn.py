"""A thread in which each caller has one thing done at a time, so that nobody waits for all that another has brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

__all__ = ["InTurn"]

Given = ParamSpec("Given")
T = TypeVar("T")


class InTurn:
    """One thread, which begins when there is work, and lives as long as this process."""

    def __init__(self, name: str) -> None:
        """name: the thread's."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        # Of callers who have something done, or wait for it.
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    async def run(self, caller: str, work: Callable[Given, T], *args: Given.args, **kwargs: Given.kwargs) -> T:
        """What the work gives. Before it comes what others have brought before, and of each of them one thing."""
        async with self._turns.setdefault(caller, asyncio.Lock()):
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))
