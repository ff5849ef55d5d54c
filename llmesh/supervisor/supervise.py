"""The supervisor itself: every program a child, each restarted alone, all ended in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import IO

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor.child import Backoff, Child, Program
from llmesh.supervisor.logs import LogFile, Sink
from llmesh.supervisor.processes import ProcessId, end, marked
from llmesh.supervisor.state import SupervisorState, read_state

# Says of a process whose supervisor started it, whatever it did since.
MARK = "LLMESH_UP"
LEFTOVER_GRACE_S = 3.0
LOCK_TRIES = 10
LOCK_PAUSE_S = 0.01


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


def _forget_dead(home: Home) -> None:
    """Remove what programs that were killed left: sockets, and the leases of tools.

    The gateway would wait for each lease to run out. A tool that lives, started
    by someone else, registers again by itself.
    """
    for socket in home.run.glob("*.sock"):
        socket.unlink(missing_ok=True)
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
        backoff: Backoff | None = None,
    ) -> None:
        self._home = home
        self._address = address
        self._mesh_file = mesh_file
        self._since = time.time()
        self._stop = asyncio.Event()
        self._logs = [LogFile(home.logs / f"{program.name}.log") for program in programs]
        self._children = [
            Child(program, log=log, sink=sink, changed=self._write_state, backoff=backoff or Backoff())
            for program, log in zip(programs, self._logs, strict=True)
        ]

    async def run(self, beside: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start everything, run `beside` along with it, and return when all has ended.

        Whatever `beside` raises ends everything at once, and is raised when that is done.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(child.run(), name=child.program.name)
                extra = group.create_task(_run(beside), name="beside") if beside else None
                await self._stop.wait()
                if extra:
                    extra.cancel()
                await self._stop_in_order()
        finally:
            for log in self._logs:
                log.close()
            self._home.supervisor.unlink(missing_ok=True)

    def stop(self) -> None:
        """End everything, in order."""
        self._stop.set()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _stop_in_order(self) -> None:
        ranked = sorted(self._children, key=lambda child: child.program.stop_rank)
        for _, same in groupby(ranked, key=lambda child: child.program.stop_rank):
            await asyncio.gather(*(child.stop() for child in same))

    def _write_state(self) -> None:
        own = ProcessId.of(os.getpid())
        state = SupervisorState(
            pid=os.getpid(),
            start_ticks=own.start_ticks if own else 0,
            address=self._address,
            mesh_file=str(self._mesh_file),
            since=self._since,
            children=tuple(child.state for child in self._children),
        )
        # A full disk must not end the mesh; `status` shows what was written last.
        with suppress(OSError):
            state.write(self._home)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
