"""One program, kept running: started, watched, brought back with growing pauses, replaced without a gap."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from llmesh.problem import Problem
from llmesh.supervisor.late_log import LateLog
from llmesh.supervisor.life import Life
from llmesh.supervisor.logs import Sink
from llmesh.supervisor.processes import cpu_ticks
from llmesh.supervisor.program import Probe, Program
from llmesh.supervisor.state import ChildState, Condition

log = logging.getLogger(__name__)

AFTER_MOST_S = 30.0
AFTER_POLL_S = 0.02
# How often a process is asked whether it answers; one that is silent is asked again at once.
ASK_EVERY_S = 1.0
ASK_MOST_S = 3.0
# What one that is silent but works is given at least.
BUSY_S = 60.0
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
        self, program: Program, *, log: LateLog, sink: Sink, changed: Callable[[], None], backoff: Backoff
    ) -> None:
        self.program = program
        self.state = ChildState(program.name, since=time.time())
        self._log = log
        self._sink = sink
        self._changed = changed
        self._backoff = backoff
        self._stopping = asyncio.Event()
        # Set to end a pause: by a stop, and by who restarts what does not run.
        self._hurried = asyncio.Event()
        self._ended = asyncio.Event()
        # Every process that runs; of those, the one that does the program's work.
        self._lives: set[Life] = set()
        self._current: Life | None = None
        self._succession = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        # The one without which no new process of this one becomes ready.
        self.needed: Child | None = None

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
                self._hurried.clear()
                if not self._stopping.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._hurried.wait(), pause_s)
        self._become(Condition.STOPPED)
        self._ended.set()

    async def stop(self) -> None:
        """End the program: asked first, killed after its grace. Returns when it is gone."""
        self._stopping.set()
        self._hurried.set()
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
        self._hurried.set()
        self._signal(signal.SIGKILL)

    async def succeed(self, *, within_s: float) -> None:
        """Put a new process in the place of the one that runs: beside it until it is ready, then alone.

        Returns when the old one has ended. Raises Problem, and leaves the old one, if the new one isn't ready in time.
        """
        name = self.program.name
        async with self._succession:
            old, ask = await self._may_succeed()
            try:
                undo = await asyncio.to_thread(self.program.prepare) if self.program.prepare else lambda: None
            except OSError as err:
                raise Problem(f"{name} is not replaced: {err}", "the old one goes on") from err
            try:
                new, fault = await self._begin_beside(old, ask, within_s)
            except BaseException:
                await asyncio.to_thread(undo)
                raise
            self._take(new)
        if fault:
            what = f"{name} {old.exit_text} before the new process was ready, which runs in its place"
            raise Problem(f"{what}, and {fault}", "see how it is: llmesh status")
        if self.program.epoch:
            await old.end_within(HAND_OVER_S)
        else:
            await old.end()

    async def _begin_beside(self, old: Life, ask: Callable[[int, int], Probe], within_s: float) -> tuple[Life, str]:
        """Start the process that is to take over, and what it still lacks. Raises Problem if it can't take over."""
        try:
            new = await self._begin(old.epoch + 1)
        except (OSError, ValueError) as err:
            raise Problem(f"{self.program.name} is not replaced: it {_cannot(err)}", "the old one goes on") from err
        try:
            fault = await self._wait_ready(new, ask(new.id.pid, new.epoch), within_s, beside=old)
        except BaseException:
            new.signal(signal.SIGKILL)
            self._spoil(old)
            raise
        # In the place of one that has ended, any is better than none; but Envoy's needs the one before it.
        if fault and (new.ended.is_set() or not old.ended.is_set() or self.program.epoch):
            await self._give_up(new)
            raise self._not_replaced(old, fault)
        return new, fault

    async def lacks(self) -> str:
        """What keeps the process that does the work from doing it; empty if nothing does."""
        life, probe = self._current, self.program.probe
        if life is None or probe is None:
            return "" if life else "does not run"
        asked = probe(life.id.pid, life.epoch)
        try:
            return await asked.missing()
        except Exception as err:
            # It must not end the mesh.
            log.exception("process could not be asked", extra={"program": self.program.name})
            return f"cannot be asked: {err!r}"
        finally:
            await asked.close()

    async def _may_succeed(self) -> tuple[Life, Callable[[int, int], Probe]]:
        """The process that another one may succeed now, and how that one is asked. Raises Problem."""
        old, ask, name = self._current, self.program.probe, self.program.name
        if old is None or self._stopping.is_set() or ask is None:
            why = "has nothing to show when it is ready" if old else f"does not run: {self.state.last_exit}"
            # Whoever restarts it may have mended what ended it.
            self._hurried.set()
            again = "" if old else "it is started at once; "
            raise Problem(f"{name} {why}", f"{again}see how it is: llmesh status")
        if old.spoiled:
            raise Problem(f"{name} is already to be replaced: {self.state.last_exit}", "see how it is: llmesh status")
        if self.needed and (missing := await self.needed.lacks()):
            needed = self.needed.program.name
            raise Problem(
                f"{name} is not replaced: the {needed}, without which no new process becomes ready, {missing}",
                f"the old one goes on; see why: logs/{needed}.log",
            )
        return old, ask

    async def _give_up(self, new: Life) -> None:
        """End a process that was to succeed another, and let that one go on."""
        if self.program.epoch:
            # Asked to end, it would have the one before it end too.
            new.signal(signal.SIGKILL)
            await new.ended.wait()
        else:
            await new.end()

    def _not_replaced(self, old: Life, fault: str) -> Problem:
        """What to tell of a new process that did not take over, and of the old one."""
        see = f"see what the new one said: logs/{self.program.name}.log"
        what = f"{self.program.name} is not replaced: the new process {fault}"
        if old.ended.is_set():
            return Problem(f"{what}; the old one {old.exit_text} meanwhile", f"it is started again; {see}")
        if self._spoil(old):
            what = f"{what}; the old one cannot be succeeded any more"
            return Problem(what, f"it is ended and started again as soon as that one would become ready; {see}")
        return Problem(what, f"the old one goes on; {see}")

    def _spoil(self, old: Life) -> bool:
        """Have a process ended that another one began to take over from, where it can't be whole again."""
        if not self.program.epoch or old.ended.is_set() or self._stopping.is_set() or self._group is None:
            return False
        old.spoiled = True
        why = "its successor did not become ready: to be replaced"
        self._say(why)
        self._become(Condition.UNRESPONSIVE, since=self.state.since, last_exit=why)
        self._group.create_task(self._replace_cold(old), name=f"{self.program.name} {old.id.pid} to be replaced")
        return True

    async def _replace_cold(self, old: Life) -> None:
        """End a process as soon as one in its place would become ready; then it is started as the first of its kind."""
        while not old.ended.is_set() and self.needed and await self.needed.lacks():
            with suppress(TimeoutError):
                await asyncio.wait_for(old.ended.wait(), ASK_EVERY_S)
        old.killed_for = "was replaced after a successor that did not become ready"
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
        known, silent_s, worked = False, 0.0, 0
        try:
            await asyncio.sleep(ASK_EVERY_S)
            while True:
                asked = time.monotonic()
                answer = await self._asked(probe.answers())
                known = known or bool(answer and await self._asked(probe.started()))
                if known and answer is not None:
                    self._hear(life, answers=answer)
                # One that is silent is asked again at once.
                await asyncio.sleep(max(ASK_EVERY_S - (0 if answer else time.monotonic() - asked), 0))
                if answer is not False:
                    silent_s = 0.0
                    continue
                worked = worked if silent_s else cpu_ticks(life.id.pid)
                # A supervisor that was stopped itself must not take its own sleep for theirs.
                silent_s += min(time.monotonic() - asked, ASK_MOST_S)
                # One that works hard may answer late.
                busy = cpu_ticks(life.id.pid) > worked
                patience_s = max(BUSY_S, self.program.patience_s) if busy else self.program.patience_s
                if silent_s >= patience_s + (0 if known else STARTING_S):
                    life.killed_for = f"did not answer for {patience_s:g} s: killed"
                    life.signal(signal.SIGKILL)
                    return
        finally:
            await probe.close()

    async def _asked(self, question: Awaitable[bool | None]) -> bool | None:
        """The answer. What goes wrong with asking says nothing of the process, and must not end the mesh."""
        try:
            return await question
        except Exception:
            log.exception("process could not be asked", extra={"program": self.program.name})
            return None

    def _hear(self, life: Life, *, answers: bool) -> None:
        """Tell whether the process that does the work answers, where that has changed."""
        if life is not self._current or life.spoiled or self.state.answers is answers:
            return
        if self.state.state is Condition.UNRESPONSIVE or not answers:
            self._say("answers again" if answers else "does not answer")
        self._become(Condition.RUNNING if answers else Condition.UNRESPONSIVE, since=self.state.since, answers=answers)

    async def _wait_ready(self, life: Life, probe: Probe, within_s: float, *, beside: Life) -> str:
        """Wait until the process can take over; what is missing if it can't in time, or before the other has ended."""
        deadline = time.monotonic() + within_s
        missing = "was not looked at"
        try:
            while missing and time.monotonic() < deadline:
                if life.ended.is_set():
                    return life.end_text
                missing = await probe.missing()
                if not missing or beside.ended.is_set():
                    break
                await asyncio.sleep(READY_POLL_S)
        finally:
            await probe.close()
        return missing

    async def _wait_for_file(self) -> None:
        """Return when the program may be started, or is to stop."""
        deadline = time.monotonic() + AFTER_MOST_S
        while not all(file.exists() for file in self.program.after) and time.monotonic() < deadline:
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
