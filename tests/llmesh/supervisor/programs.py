"""Programs below a supervisor, and a probe that says of them what a test says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from llmesh.home import Home
from llmesh.supervisor.child import Backoff
from llmesh.supervisor.control import Restarted
from llmesh.supervisor.program import Program
from llmesh.supervisor.state import ChildState, Condition, read_state
from llmesh.supervisor.supervise import MARK, Supervisor
from tests.eventually import eventually

SLEEPER = "import signal; signal.pause()"


class Told:
    """A probe that says what the test says, of every process or of one."""

    def __init__(self) -> None:
        self.alive: bool | None = True
        self.has_started = True
        self.fails: Exception | None = None
        # How often it was asked.
        self.asked = 0
        self.lacks: Callable[[int], str] = lambda _pid: ""

    def __call__(self, pid: int, _epoch: int) -> _Asking:
        return _Asking(self, pid)


class _Asking:
    def __init__(self, told: Told, pid: int) -> None:
        self._told = told
        self._pid = pid

    async def answers(self) -> bool | None:
        await asyncio.sleep(0.01)
        self._told.asked += 1
        if self._told.fails:
            raise self._told.fails
        return self._told.alive

    async def started(self) -> bool:
        return self._told.has_started

    async def missing(self) -> str:
        if self._told.fails:
            raise self._told.fails
        return self._told.lacks(self._pid)

    async def close(self) -> None:
        pass


def program(home: Home, probe: Told | None, code: str = SLEEPER, *, name: str = "one") -> Program:
    env = {**os.environ, MARK: str(home.path)}
    return Program(name=name, argv=(sys.executable, "-c", code), cwd=home.path, env=env, probe=probe, patience_s=0)


@asynccontextmanager
async def running(
    home: Home,
    *programs: Program,
    said: list[str] | None = None,
    backoff: Backoff | None = None,
    replan: Callable[[], Sequence[Program]] = tuple,
) -> AsyncGenerator[Supervisor]:
    """Programs below a supervisor, once all of them run."""
    lines = [] if said is None else said
    boss = Supervisor(
        home,
        programs,
        address="",
        mesh_file=home.path,
        sink=lambda _name, line: lines.append(line),
        backoff=backoff,
        replan=replan,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        try:
            for each in programs:
                await eventually(lambda name=each.name: runs(home, name))
            yield boss
        finally:
            boss.stop()


def child(home: Home, name: str = "one") -> ChildState:
    state = read_state(home)
    assert state is not None
    return next(each for each in state.children if each.name == name)


async def runs(home: Home, name: str = "one") -> ChildState:
    found = child(home, name)
    assert found.state is Condition.RUNNING
    assert found.process.alive()
    return found


async def told(boss: Supervisor, *names: str) -> Sequence[Restarted]:
    return [each async for each in boss.restart(names)]
