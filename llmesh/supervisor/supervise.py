"""The supervisor itself: every program a child, each restarted alone, all ended in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import IO

from llmesh.home import Home
from llmesh.mesh_file import LogSettings
from llmesh.problem import Problem
from llmesh.supervisor.child import Backoff, Child
from llmesh.supervisor.control import Restarted, serve_control
from llmesh.supervisor.late_log import LateLog
from llmesh.supervisor.logs import LogFile, Sink
from llmesh.supervisor.processes import ProcessId, end, marked
from llmesh.supervisor.program import Program
from llmesh.supervisor.rotation import rotate_calls
from llmesh.supervisor.state import SupervisorState, read_state

# Says of a process whose supervisor started it, whatever it did since.
MARK = "LLMESH_UP"
LEFTOVER_GRACE_S = 3.0
LOCK_TRIES = 10
LOCK_PAUSE_S = 0.01
# Envoy takes 32 bits, and writes a digit after them.
BASE_IDS = 200_000_000
# How long a program that takes another's place has to become ready.
READY_WITHIN_S = 60.0
# What runs in the background waits so long for the rest of the mesh.
BACKGROUND_AFTER_S = 15.0
BACKGROUND_POLL_S = 0.1


@contextmanager
def held(home: Home) -> Generator[None]:
    """Be the one supervisor of this mesh directory. Raises Problem if there is another.

    The lock ends with the process, however that ends.
    """
    lock = (home.state / "supervisor.lock").open("w")
    try:
        _lock(lock)
    except BlockingIOError as err:
        lock.close()
        state = read_state(home)
        at = f" on {state.address} (pid {state.pid})" if state else ""
        raise Problem(f"this mesh is already up{at}", "see `llmesh status`, or end it: llmesh down") from err
    try:
        yield
    finally:
        lock.close()


def _lock(lock: IO[str]) -> None:
    """Take the lock. Raises BlockingIOError if another supervisor has it."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `is_up` has it for a moment.
        time.sleep(LOCK_PAUSE_S)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_up(home: Home) -> bool:
    """Whether a supervisor runs for this mesh directory."""
    try:
        with (home.state / "supervisor.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def clear_leftovers(home: Home) -> list[str]:
    """End what a killed supervisor left running; the names or pids of what was ended."""
    state = read_state(home)
    recorded = {child.process: child.name for child in state.children if child.pid} if state else {}
    alive = {process: name for process, name in recorded.items() if process.alive()}
    for process in marked(f"{MARK}={home.path}"):
        alive.setdefault(process, f"pid {process.pid}")
    end(list(alive), grace_s=LEFTOVER_GRACE_S)
    home.supervisor.unlink(missing_ok=True)
    _forget_dead(home)
    return list(alive.values())


def base_id(home: Home) -> int:
    """What sets the Envoys of this mesh apart from others on the machine: they share memory by its name."""
    return zlib.crc32(os.fsencode(home.path)) % BASE_IDS


def shared_memory(home: Home) -> Path:
    """What Envoys that succeed one another share; the last one leaves it."""
    # Ten times the base id: Envoy counts successors in the last digit of its sockets' names.
    return Path(f"/dev/shm/envoy_shared_memory_{base_id(home)}0")  # noqa: S108 Envoy's own place for it


def _forget_memory(home: Home) -> None:
    with suppress(OSError):
        shared_memory(home).unlink()


def _forget_dead(home: Home) -> None:
    """Remove what programs that were killed left: sockets, files half written, and the leases of tools.

    The gateway would wait for each lease to run out. A tool that lives, started
    by someone else, registers again by itself.
    """
    for socket in home.run.iterdir():
        if not socket.is_dir():
            socket.unlink(missing_ok=True)
    for draft in home.state.glob(".*"):
        draft.unlink(missing_ok=True)
    _forget_memory(home)
    for socket in home.tools.glob("*-*.sock"):
        pid = socket.stem.rpartition("-")[2]
        if pid.isdigit() and not ProcessId.of(int(pid)):
            socket.unlink(missing_ok=True)
    home.leases.unlink(missing_ok=True)


class Supervisor:
    """Runs programs until `stop`, SIGINT, SIGTERM or SIGHUP; a second signal kills them."""

    def __init__(
        self,
        home: Home,
        programs: Sequence[Program],
        *,
        address: str,
        mesh_file: Path,
        sink: Sink,
        logs: LogSettings = LogSettings(),  # noqa: B008 it is frozen
        backoff: Backoff | None = None,
        replan: Callable[[], Sequence[Program]] = tuple,
    ) -> None:
        """replan: gives the programs as they are to run from now on; asked at restarts. May raise Problem."""
        self._home = home
        self._address = address
        self._mesh_file = mesh_file
        self._replan = replan
        self._since = time.time()
        self._stop = asyncio.Event()
        self._unwritten = asyncio.Event()
        self._rotation = logs
        self._logs = [
            LateLog(LogFile(home.logs / f"{program.name}.log", rotate_bytes=logs.rotate_bytes, keep=logs.keep))
            for program in programs
        ]
        self._children = [
            Child(program, log=log, sink=sink, changed=self._unwritten.set, backoff=backoff or Backoff())
            for program, log in zip(programs, self._logs, strict=True)
        ]
        named = {child.program.name: child for child in self._children}
        for child in self._children:
            child.needed = named.get(child.program.needs)

    async def run(self, beside: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start everything, run `beside` along with it, and return when all has ended.

        Whatever `beside` raises ends everything at once, and is raised when that is done.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with serve_control(self._home, self.restart), asyncio.TaskGroup() as group:
                for child in self._children:
                    begun = self._run_later(child) if child.program.background else child.run()
                    group.create_task(begun, name=child.program.name)
                rotation = rotate_calls(self._home, rotate_bytes=self._rotation.rotate_bytes, keep=self._rotation.keep)
                beside_all = [
                    group.create_task(self._write_state(), name="state"),
                    group.create_task(rotation, name="rotation"),
                ]
                extra = group.create_task(_run(beside), name="beside") if beside else None
                await self._stop.wait()
                if extra:
                    extra.cancel()
                await self._stop_in_order()
                for task in beside_all:
                    task.cancel()
        finally:
            for log in self._logs:
                log.close()
            _forget_memory(self._home)
            self._home.supervisor.unlink(missing_ok=True)

    def stop(self) -> None:
        """End everything, in order."""
        self._stop.set()

    async def restart(self, names: Sequence[str]) -> AsyncGenerator[Restarted]:
        """Replace programs by their names, or all, one after another, without a gap; tells of each when it is done.

        Ends with the first that is not replaced: what broke it may break the next. Raises Problem if others are left
        then, and before anything is done if there is none of a name.
        """
        known = {child.program.name: child for child in self._children}
        for name in names:
            if name not in known:
                step = f"there are: {', '.join(known)}; what is new since the mesh was started runs once it is anew"
                raise Problem(f"nothing that runs here is called `{name}`", step)
        waiting = list(names or known)
        for program in await asyncio.to_thread(self._replan):
            # What has to be prepared reads for itself what has changed.
            if program.name in waiting and not program.prepare:
                known[program.name].program = program
        while waiting:
            name = waiting.pop(0)
            try:
                await known[name].succeed(within_s=READY_WITHIN_S)
            except Problem as problem:
                yield Restarted(name, problem.message, problem.step)
                if waiting:
                    again = f"once {name} is mended: llmesh restart {' '.join((name, *waiting))}"
                    raise Problem(f"not restarted, as {name} was not: {', '.join(waiting)}", again) from problem
                return
            yield Restarted(name)

    async def _run_later(self, child: Child) -> None:
        """Run a program once those that the mesh is not up without answer, or have had long enough."""
        first = [each for each in self._children if not each.program.background and each.program.probe]
        deadline = time.monotonic() + BACKGROUND_AFTER_S
        while time.monotonic() < deadline and not all(each.state.answers for each in first):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), BACKGROUND_POLL_S)
            if self._stop.is_set():
                break
        await child.run()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _stop_in_order(self) -> None:
        ranked = sorted(self._children, key=lambda child: child.program.stop_rank)
        for _, same in groupby(ranked, key=lambda child: child.program.stop_rank):
            await asyncio.gather(*(child.stop() for child in same))

    async def _write_state(self) -> None:
        """Keep supervisor.json up to date, the newest state where the disk is slower."""
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            writing = asyncio.ensure_future(asyncio.to_thread(self._state().write, self._home))
            try:
                # A full disk must not end the mesh; `status` shows what was written last.
                with suppress(OSError):
                    await asyncio.shield(writing)
            except asyncio.CancelledError:
                # A thread cannot be stopped, and must not write when we have ended.
                await asyncio.wait([writing])
                raise

    def _state(self) -> SupervisorState:
        own = ProcessId.of(os.getpid())
        return SupervisorState(
            pid=os.getpid(),
            start_ticks=own.start_ticks if own else 0,
            address=self._address,
            mesh_file=str(self._mesh_file),
            since=self._since,
            children=tuple(child.state for child in self._children),
        )


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
