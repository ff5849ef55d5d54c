"""Where callers' types are worked on: in processes apart, so many at once, each piece of work with an end.

What a caller sends may take as long as they like: files without end, thousands of rules that each have a budget of
their own. protovalidate and protobuf hold the interpreter while they work, so that even in a thread they would leave
nothing for whoever else is served. A process can be ended, and leaves them all but its own processor.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, cast

from llmesh.errors import Unavailable
from model_server.bench import CPU_S, LENGTH, SPENT
from model_server.in_turn import Turns

__all__ = ["SpentError", "Visit", "Workshop"]

# Processes. A caller has work done by one of them at a time, so that there is another for the others.
BENCHES = 2
# Of memory that is left in a process after its work. One with more is ended: it would be wanting to the next callers.
KEPT_BYTES = 512 << 20
RETRY_ENDED_S = 1.0

T = TypeVar("T")
Given = TypeVarTuple("Given")


class SpentError(Exception):
    """The work took more time of a processor, or memory, than any may, and was ended."""


class Workshop:
    """Has work done for calls. Its processes begin when there is work, and end with it or with this process."""

    def __init__(self) -> None:
        """Nothing begins yet."""
        self._turns_of = Turns()
        self._turns = asyncio.Semaphore(BENCHES)
        self._idle: list[_Bench] = []

    async def __aenter__(self) -> Self:
        """Ready."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes that have nothing to do. Whoever is at work is to be cancelled before."""
        while self._idle:
            await self._idle.pop().end()

    def visit(self, caller: str) -> Visit:
        """Of a call that is to have work done for its caller."""
        return Visit(self, self._turns_of.of(caller))

    async def run(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """What the work, a function of a module, makes of what is given; in turn, and ended when this is cancelled.

        Raises what it raises, SpentError if it takes too much, and Unavailable if its process ends for another cause.
        """
        async with self._turns:
            bench = await self._bench()
            try:
                is_done, found = await bench.do(work, given)
            except (EOFError, ConnectionError) as err:
                if await bench.ended() in SPENT:
                    raise SpentError(f"took more than {CPU_S:.0f} s of a processor, or too much memory") from err
                words = "the process that works on types has ended"
                raise Unavailable(words, retry_after_s=RETRY_ENDED_S, reason="WORK_ENDED") from err
            except BaseException:
                await bench.end()
                raise
            if bench.resident_bytes() > KEPT_BYTES:
                await bench.end()
            else:
                self._idle.append(bench)
        if is_done:
            return cast("T", found)
        raise cast("Exception", found)

    async def _bench(self) -> _Bench:
        while self._idle:
            bench = self._idle.pop()
            if bench.lives:
                return bench
        return await _Bench.begin()


@dataclass(frozen=True, slots=True)
class Visit:
    """One call's, to have work done: one piece after another with all that its caller's other calls have done."""

    workshop: Workshop
    turn: asyncio.Lock

    async def run(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """As the workshop's."""
        async with self.turn:
            return await self.workshop.run(work, *given)


class _Bench:
    """One process that does one piece of work after another."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def begin(cls) -> Self:
        """A new one."""
        argv = (sys.executable, "-P", "-m", "model_server.bench", str(os.getpid()))
        return cls(await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE))

    @property
    def lives(self) -> bool:
        return self._process.returncode is None

    def resident_bytes(self) -> int:
        """What it holds of the machine's memory; 0 once it has ended, or where Linux does not tell."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * resource.getpagesize()

    async def do(self, work: object, given: object) -> tuple[bool, object]:
        """Whether it is done, and what it gave or raised. Raises EOFError or ConnectionError if it was ended."""
        asked, answers = self._process.stdin, self._process.stdout
        if asked is None or answers is None:
            raise EOFError
        asked.write(pickle.dumps((work, given)))
        await asked.drain()
        (size,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
        return pickle.loads(await answers.readexactly(size))  # noqa: S301 of our own process

    async def ended(self) -> int:
        """Its exit status, or its signal below zero, once it has closed its pipes."""
        status = await self._process.wait()
        await self.end()
        return status

    async def end(self) -> None:
        """Kill it, and see it end."""
        if self.lives:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
