"""One program, kept running: started, watched, brought back with growing pauses."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from errno import ENOENT
from pathlib import Path
from typing import cast

from llmesh.supervisor.logs import LogFile, Sink, lines
from llmesh.supervisor.processes import ProcessId, group_of
from llmesh.supervisor.state import ChildState, Condition

AFTER_MOST_S = 30.0
AFTER_POLL_S = 0.02
LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: argv in cwd with exactly this environment.

    stop_rank orders the end: programs of a lower rank have ended before those
    of the next are asked to. grace_s is what one gets to end by itself. It is
    not started before the file `after` exists (None: at once), but for
    AFTER_MOST_S: without it, it may at least say what is wrong.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_rank: int = 0
    grace_s: float = 5.0
    after: Path | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: first_s, doubling to most_s.

    A program that lived for healthy_s starts again from first_s.
    """

    first_s: float = 0.2
    most_s: float = 10.0
    healthy_s: float = 30.0

    def next(self, last_s: float, *, lived_s: float) -> float:
        """The pause after one of last_s (0: there was none) and a life of lived_s."""
        if last_s == 0 or lived_s >= self.healthy_s:
            return self.first_s
        return min(last_s * 2, self.most_s)


class Child:
    """Runs one program until told to stop. `run` is to be run by one task, once."""

    def __init__(
        self, program: Program, *, log: LogFile, sink: Sink, changed: Callable[[], None], backoff: Backoff
    ) -> None:
        self.program = program
        self.state = ChildState(program.name, since=time.time())
        self._log = log
        self._sink = sink
        self._changed = changed
        self._backoff = backoff
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._process: Process | None = None

    async def run(self) -> None:
        """Keep the program running; returns after `stop`."""
        pause_s = 0.0
        while not self._stopping.is_set():
            await self._wait_for_file()
            if self._stopping.is_set():
                break
            began = time.monotonic()
            exit_text = await self._run_once()
            if self._stopping.is_set():
                self._become(Condition.STOPPED, last_exit=exit_text)
                break
            pause_s = self._backoff.next(pause_s, lived_s=time.monotonic() - began)
            self._become(Condition.BACKING_OFF, last_exit=exit_text, restarts=self.state.restarts + 1)
            self._say(f"{exit_text}; starting again in {pause_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
        self._become(Condition.STOPPED)
        self._ended.set()

    async def stop(self) -> None:
        """End the program: asked first, killed after its grace. Returns when it is gone."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), self.program.grace_s)
        except TimeoutError:
            self._say(f"did not end within {self.program.grace_s:g} s: killed")
            self._signal(signal.SIGKILL)
            await self._ended.wait()

    def kill(self) -> None:
        """End the program at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def _wait_for_file(self) -> None:
        """Return when the program may be started, or is to stop."""
        deadline = time.monotonic() + AFTER_MOST_S
        while self.program.after and not self.program.after.exists() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), AFTER_POLL_S)
                return

    async def _run_once(self) -> str:
        """One life of the program; how it ended, in words."""
        try:
            process = await self._spawn()
        except (OSError, ValueError) as err:
            # A machine short of processes or memory must not end the programs that run.
            return f"cannot be started: {getattr(err, 'strerror', None) or err}"
        self._process = process
        started = ProcessId.of(process.pid)
        self._become(Condition.RUNNING, pid=process.pid, start_ticks=started.start_ticks if started else 0)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        stream = cast("StreamReader", process.stdout)
        reading = asyncio.create_task(self._read(stream), name=f"output of {self.program.name}")
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            self.kill()
            await process.wait()
            raise
        finally:
            await self._sweep(process.pid, reading)
            self._process = None
        return exit_text(code)

    async def _spawn(self) -> Process:
        """Start the program. Raises OSError or ValueError if that can't be done now."""
        program = self.program
        if not program.cwd.is_dir():
            raise FileNotFoundError(ENOENT, f"its folder `{program.cwd}` is not there")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *program.argv),
            cwd=program.cwd,
            env=dict(program.env),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            process_group=0,
        )

    async def _read(self, stream: StreamReader) -> None:
        async for line in lines(stream):
            self._print(line)

    async def _sweep(self, group: int, reading: asyncio.Task[None]) -> None:
        """End what the program itself started, and read what it had still to say."""
        if group_of(group):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        await asyncio.wait([reading], timeout=1)
        reading.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _become(self, state: Condition, **facts: object) -> None:
        pid = {} if state is Condition.RUNNING else {"pid": 0, "start_ticks": 0}
        self.state = replace(self.state, state=state, since=time.time(), **{**pid, **facts})  # pyright: ignore[reportArgumentType] one dataclass's own fields
        self._changed()

    def _say(self, text: str) -> None:
        """A line of the supervisor's about the program, among the program's own."""
        self._print(f"[llmesh] {text}")

    def _print(self, line: str) -> None:
        self._log.write(line)
        self._sink(self.program.name, line)


def exit_text(code: int) -> str:
    """How a process ended: "ended by SIGKILL", "exited with 1"."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        # Most real-time signals have no name.
        return f"ended by signal {-code}"
