"""Whether an engine hangs: it answers nothing, and does nothing either.

How long a step takes says little: a long input keeps a slow machine busy for
minutes. So one that does not answer is taken for hanging where its processes
use no processor at all, nor wait for one, or for a disk. One that is busy and
answers nothing gets as long as the longest call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["wait_until_it_hangs"]

ASK_EVERY_S = 5.0
# How often one that has not answered is looked at. Looks are counted, and not seconds: where the machine, or this
# process, stands still, both sides do.
LOOK_EVERY_S = 1.0
STILL_LOOKS, LOOKS = 30, 3600
# Of /proc/PID/stat, from the state on.
_STATE, _USER, _SYSTEM = 0, 11, 12


async def wait_until_it_hangs(ask: Callable[[], Awaitable[object]], processes: Callable[[], Iterable[int]]) -> None:
    """Return once an engine hangs. Linux alone tells.

    ask: what it answers between any two steps; that it failed, or was cancelled, is an answer, too. processes: the ids
    of those that it has started.
    """
    while True:
        await asyncio.sleep(ASK_EVERY_S)
        answer = asyncio.ensure_future(ask())
        try:
            if not await _comes(answer, processes):
                return
        finally:
            answer.cancel()


async def _comes(answer: asyncio.Future[object], processes: Callable[[], Iterable[int]]) -> bool:
    """Whether there is an answer before the engine has done nothing for too many looks in a row."""
    used, still = 0, 0
    for _ in range(LOOKS):
        await asyncio.wait([answer], timeout=LOOK_EVERY_S)
        if answer.done():
            with suppress(Exception, asyncio.CancelledError):
                answer.result()
            return True
        before, used = used, await asyncio.to_thread(_used, processes())
        # Where nothing is told of processors at all, nothing follows from it.
        still = still + 1 if 0 < used == before else 0
        if still >= STILL_LOOKS:
            break
    return False


def _used(pids: Iterable[int]) -> int:
    """The processor time of these processes and those below them, in ticks; 0 if one of their threads has work."""
    ticks = 0
    for pid in pids:
        for each in _tree(pid):
            with suppress(OSError):
                if any(_stat(path)[_STATE] in "RD" for path in Path(f"/proc/{each}/task").glob("*/stat")):
                    return 0
                stat = _stat(Path(f"/proc/{each}/stat"))
                ticks += int(stat[_USER]) + int(stat[_SYSTEM])
    return ticks


def _tree(pid: int) -> Iterator[int]:
    """The process and all below it."""
    yield pid
    # A process, or a thread, that ends meanwhile has none.
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in path.read_text().split():
                    yield from _tree(int(child))


def _stat(path: Path) -> list[str]:
    # The name before it may hold anything.
    return path.read_text().rpartition(")")[2].split()
