"""One process of a program, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable
from contextlib import suppress
from errno import ENOENT
from pathlib import Path
from typing import cast

from llmesh.home import SUCCEEDS
from llmesh.supervisor.logs import in_words, lines
from llmesh.supervisor.processes import ProcessId, group_of
from llmesh.supervisor.program import Program

LAUNCH = Path(__file__).with_name("launch.py")


class Life:
    """A process that runs. `run` is to be run by one task, once; exit_text says how it ended when it has."""

    def __init__(self, program: Program, process: Process, *, epoch: int, tell: Callable[[str], None]) -> None:
        self.epoch = epoch
        self.ended = asyncio.Event()
        self.exit_text = ""
        # Why it was killed, if it was for something it did.
        self.killed_for = ""
        # Whether another process began to take over from it and did not: no other can.
        self.spoiled = False
        self._program = program
        self._process = process
        self._tell = tell
        self._last_line = ""

    @classmethod
    async def begin(cls, program: Program, *, epoch: int, tell: Callable[[str], None]) -> Life:
        """Start a process. tell takes each line it prints. Raises OSError or ValueError if that can't be done now."""
        if not program.cwd.is_dir():
            raise FileNotFoundError(ENOENT, f"its folder `{program.cwd}` is not there")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *program.line(epoch)),
            cwd=program.cwd,
            env={**program.env, **({SUCCEEDS: "1"} if epoch else {})},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            process_group=0,
        )
        return cls(program, process, epoch=epoch, tell=tell)

    @property
    def id(self) -> ProcessId:
        """The process."""
        pid = self._process.pid
        return ProcessId.of(pid) or ProcessId(pid, 0)

    @property
    def end_text(self) -> str:
        """How it ended, with the last that it said: most often why."""
        words = in_words(self._last_line)
        return f"{self.exit_text}; its last words: {words}" if words else self.exit_text

    async def run(self) -> None:
        """Pass on what it prints until it has ended, and what it started with it."""
        stream = cast("StreamReader", self._process.stdout)
        reading = asyncio.create_task(self._read(stream), name=f"output of {self._program.name}")
        try:
            code = await self._process.wait()
        except asyncio.CancelledError:
            self.signal(signal.SIGKILL)
            await self._process.wait()
            raise
        finally:
            await self._sweep(reading)
        self.exit_text = self.killed_for or exit_text(code)
        self.ended.set()

    async def end(self) -> bool:
        """Ask it to end, and kill it after its grace; whether it ended by itself. Returns when it is gone."""
        self.signal(signal.SIGTERM)
        return await self.end_within(self._program.grace_s)

    async def end_within(self, span_s: float) -> bool:
        """Let it end, and kill it after the span; whether it ended by itself. Returns when it is gone."""
        try:
            await asyncio.wait_for(self.ended.wait(), span_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and all that it started, if it runs."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _read(self, stream: StreamReader) -> None:
        async for line in lines(stream):
            self._last_line = line.strip() or self._last_line
            self._tell(line)

    async def _sweep(self, reading: asyncio.Task[None]) -> None:
        """End what the program itself started, and read what it had still to say."""
        if group_of(self._process.pid):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.wait([reading], timeout=1)
        reading.cancel()


def exit_text(code: int) -> str:
    """How a process ended: "ended by SIGKILL", "exited with 1"."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        # Most real-time signals have no name.
        return f"ended by signal {-code}"
