"""One program, kept running: started, watched, brought back with growing pauses, replaced without a gap."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from llmesh.problem import Problem
from llmesh.supervisor.life import Life
from llmesh.supervisor.logs import LogFile, Sink
from llmesh.supervisor.program import Probe, Program
from llmesh.supervisor.state import ChildState, Condition

AFTER_MOST_S = 30.0
AFTER_POLL_S = 0.02
# How often a process is asked whether it answers; one that is silent is asked again at once.
ASK_EVERY_S = 1.0
ASK_MOST_S = 3.0
# What one that has never answered is given beside a program's patience.
STARTING_S = 60.0
READY_POLL_S = 0.1
# How long a process is given to end those whose place it takes, where it does that itself.
HAND_OVER_S = 30.0


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
        # Every process that runs; of those, the one that does the program's work.
        self._lives: set[Life] = set()
        self._current: Life | None = None
        self._succession = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep the program running; returns after `stop`."""
        pause_s = 0.0
        async with asyncio.TaskGroup() as self._group:
            while not self._stopping.is_set():
                await self._wait_for_file()
                if self._stopping.is_set():
                    break
                began = time.monotonic()
                exit_text = await self._live()
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

    async def succeed(self, *, within_s: float) -> None:
        """Put a new process in the place of the one that runs: beside it until it is ready, then alone.

        Returns when the old one has ended. Raises Problem, and leaves the old one, if the new one isn't ready in time.
        """
        async with self._succession:
            old = self._current
            if old is None or self._stopping.is_set() or self.program.probe is None:
                why = "has nothing to show when it is ready" if old else f"does not run: {self.state.last_exit}"
                raise Problem(f"{self.program.name} {why}", "see how it is: llmesh status")
            try:
                new = await self._begin(old.epoch + 1)
            except (OSError, ValueError) as err:
                raise Problem(f"{self.program.name} is not replaced: it {_cannot(err)}") from err
            fault = await self._wait_ready(new, self.program.probe(new.id.pid, new.epoch), within_s)
            if fault:
                await new.end()
                raise Problem(
                    f"{self.program.name} is not replaced: the new process {fault}",
                    f"the old one goes on; see what the new one said: logs/{self.program.name}.log",
                )
            self._take(new)
        if self.program.epoch:
            await old.end_within(HAND_OVER_S)
        else:
            await old.end()

    async def _live(self) -> str:
        """Start the program, and follow it and those that succeed it until the last has ended; how that did."""
        try:
            life = await self._begin(0)
        except (OSError, ValueError) as err:
            # A machine short of processes or memory must not end the programs that run.
            return _cannot(err)
        self._take(life)
        while True:
            await life.ended.wait()
            # One that is to succeed it may be ready in a moment.
            async with self._succession:
                if self._current is life:
                    self._current = None
                    return life.exit_text
                life = self._current or life

    async def _begin(self, epoch: int) -> Life:
        """Start a process, and look after it until it has ended. Raises OSError or ValueError."""
        life = await Life.begin(self.program, epoch=epoch, tell=self._print)
        self._lives.add(life)
        if self._stopping.is_set():
            life.signal(signal.SIGTERM)
        if self._group is not None:
            self._group.create_task(self._follow(life), name=f"{self.program.name} {life.id.pid}")
        return life

    async def _follow(self, life: Life) -> None:
        """Run a process, and ask it whether it answers."""
        async with asyncio.TaskGroup() as beside:
            asking = beside.create_task(self._ask(life)) if self.program.probe else None
            await life.run()
            self._lives.discard(life)
            if asking:
                asking.cancel()

    async def _ask(self, life: Life) -> None:
        """Ask a process for as long as it lives; one that is silent for too long is killed."""
        if self.program.probe is None:
            return
        probe = self.program.probe(life.id.pid, life.epoch)
        known, silent_s = False, 0.0
        try:
            while True:
                await asyncio.sleep(0 if silent_s else ASK_EVERY_S)
                asked = time.monotonic()
                answer = await probe.answers()
                if answer is not False:
                    silent_s = 0.0
                    if answer:
                        known = True
                        self._hear(life, answers=True)
                    continue
                # A supervisor that was stopped itself must not take its own sleep for theirs.
                silent_s += min(time.monotonic() - asked, ASK_MOST_S)
                if known:
                    self._hear(life, answers=False)
                if silent_s >= self.program.patience_s + (0 if known else STARTING_S):
                    life.killed_for = f"did not answer for {self.program.patience_s:g} s: killed"
                    life.signal(signal.SIGKILL)
                    return
        finally:
            await probe.close()

    def _hear(self, life: Life, *, answers: bool) -> None:
        """Tell whether the process that does the work answers, where that has changed."""
        if life is not self._current or self.state.answers is answers:
            return
        if self.state.state is Condition.UNRESPONSIVE or not answers:
            self._say("answers again" if answers else "does not answer")
        self._become(Condition.RUNNING if answers else Condition.UNRESPONSIVE, since=self.state.since, answers=answers)

    async def _wait_ready(self, life: Life, probe: Probe, within_s: float) -> str:
        """Wait until the process can take over; what is missing if it can't in time."""
        deadline = time.monotonic() + within_s
        missing = "was not looked at"
        try:
            while missing and time.monotonic() < deadline:
                if life.ended.is_set():
                    return life.exit_text
                missing = await probe.missing()
                if missing:
                    await asyncio.sleep(READY_POLL_S)
        finally:
            await probe.close()
        return missing

    async def _wait_for_file(self) -> None:
        """Return when the program may be started, or is to stop."""
        deadline = time.monotonic() + AFTER_MOST_S
        while self.program.after and not self.program.after.exists() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), AFTER_POLL_S)
                return

    def _take(self, life: Life) -> None:
        """Let this process be the one that does the work."""
        self._current = life
        self._become(Condition.RUNNING, pid=life.id.pid, start_ticks=life.id.start_ticks)

    def _signal(self, number: signal.Signals) -> None:
        for life in self._lives:
            life.signal(number)

    def _become(self, state: Condition, **facts: object) -> None:
        gone = {"pid": 0, "start_ticks": 0} if state in (Condition.BACKING_OFF, Condition.STOPPED) else {}
        changed = {"since": time.time(), "answers": False, **gone, **facts}
        self.state = replace(self.state, state=state, **changed)  # pyright: ignore[reportArgumentType] one dataclass's own fields
        self._changed()

    def _say(self, text: str) -> None:
        """A line of the supervisor's about the program, among the program's own."""
        self._print(f"[llmesh] {text}")

    def _print(self, line: str) -> None:
        self._log.write(line)
        self._sink(self.program.name, line)


def _cannot(err: OSError | ValueError) -> str:
    return f"cannot be started: {getattr(err, 'strerror', None) or err}"
