"""A program's processes that succeed one another without a gap, and those that hang."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llmesh import home as homes
from llmesh.home import SUCCEEDS, Home
from llmesh.problem import Problem
from llmesh.supervisor import child as children
from llmesh.supervisor import control, plan, supervise
from llmesh.supervisor.control import Restarted, ask_restart
from llmesh.supervisor.processes import cpu_ticks, end, marked
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.find(tmp_path / "m").create()
    yield home
    end(marked(f"{MARK}={home.path}"), grace_s=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(children, "READY_POLL_S", 0.01)


def program(home: Home, probe: Told | None, code: str = SLEEPER, *, name: str = "one") -> Program:
    env = {**os.environ, MARK: str(home.path)}
    return Program(name=name, argv=(sys.executable, "-c", code), cwd=home.path, env=env, probe=probe, patience_s=0)


@asynccontextmanager
async def running(home: Home, *programs: Program, said: list[str] | None = None) -> AsyncGenerator[Supervisor]:
    """Programs below a supervisor, once all of them run."""
    lines = [] if said is None else said
    boss = Supervisor(home, programs, address="", mesh_file=home.path, sink=lambda _name, line: lines.append(line))
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


async def cut_off(_boss: Supervisor, _names: Sequence[str]) -> AsyncGenerator[Restarted]:
    raise BrokenPipeError("cut off")
    yield Restarted("one")


async def told(boss: Supervisor, *names: str) -> Sequence[Restarted]:
    return [each async for each in boss.restart(names)]


async def test_a_new_process_takes_over_when_it_is_ready_and_then_the_old_one_ends(home: Home) -> None:
    probe, said = Told(), list[str]()
    code = f"import os; print('succeeds', os.environ.get({SUCCEEDS!r}, 'nobody'), flush=True); {SLEEPER}"
    async with running(home, program(home, probe, code), said=said) as boss:
        before = child(home)

        async def is_up() -> None:
            assert said == ["succeeds nobody"]

        await eventually(is_up)
        ready = asyncio.Event()
        probe.lacks = lambda pid: "" if ready.is_set() or pid == before.pid else "is not ready"
        restarting = asyncio.create_task(told(boss))

        async def both_run() -> None:
            assert len(marked(f"{MARK}={home.path}")) == 2
            assert "succeeds 1" in said

        await eventually(both_run)
        assert child(home).pid == before.pid
        ready.set()
        assert await restarting == [Restarted("one")]
        assert not before.process.alive()
        after = await eventually(lambda: runs(home))
        assert (after.restarts, after.last_exit) == (0, "")


async def test_a_new_process_that_does_not_become_ready_is_ended_and_the_old_one_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Told()
    async with running(home, program(home, probe)) as boss:
        before = child(home)
        probe.lacks = lambda _pid: "was refused at `own`: NO_OWNER"
        monkeypatch.setattr("llmesh.supervisor.supervise.READY_WITHIN_S", 0.2)
        [restarted] = await told(boss)
        assert restarted.problem == "one is not replaced: the new process was refused at `own`: NO_OWNER"
        assert "logs/one.log" in restarted.step
        assert (child(home).pid, before.process.alive()) == (before.pid, True)
        assert [each.pid for each in marked(f"{MARK}={home.path}")] == [before.pid]


async def test_a_new_process_that_ends_is_told_of_at_once(home: Home) -> None:
    probe = Told()
    code = f"import os, sys; os.environ.get({SUCCEEDS!r}) and sys.exit(3); {SLEEPER}"
    async with running(home, program(home, probe, code)) as boss:
        probe.lacks = lambda _pid: "is not ready"
        [restarted] = await told(boss)
        assert restarted.problem == "one is not replaced: the new process exited with 3"


async def test_one_that_is_not_ready_yet_takes_the_place_of_one_that_dies(home: Home) -> None:
    probe = Told()
    async with running(home, program(home, probe)) as boss:
        before = child(home)
        probe.lacks = lambda _pid: "is not ready"
        restarting = asyncio.create_task(told(boss))
        await eventually(lambda: two(home))
        os.kill(before.pid, signal.SIGKILL)
        [restarted] = await restarting
        assert restarted.problem == (
            "one ended by SIGKILL before the new process was ready, which runs in its place, and is not ready"
        )
        after = await eventually(lambda: runs(home))
        assert after.restarts == 0
        assert [each.pid for each in marked(f"{MARK}={home.path}")] == [after.pid]


async def test_restarts_end_with_the_first_that_fails_and_say_why_and_what_is_left(home: Home) -> None:
    probe = Told()
    refuses = f"import os, sys; os.environ.get({SUCCEEDS!r}) and sys.exit('no such key: `procesess`'); {SLEEPER}"
    never = Told()
    never.lacks = lambda _pid: "is not ready"
    programs = [program(home, probe), program(home, never, refuses, name="two"), program(home, probe, name="three")]
    async with running(home, *programs):
        before = {name: child(home, name).pid for name in ("one", "two", "three")}
        answers = ask_restart(home, [])
        assert await asyncio.to_thread(next, answers) == Restarted("one")
        failed = await asyncio.to_thread(next, answers)
        why = "exited with 1; its last words: no such key: `procesess`"
        assert failed.problem == f"two is not replaced: the new process {why}"
        with pytest.raises(Problem, match="not restarted, as two was not: three") as left:
            await asyncio.to_thread(next, answers)
        assert left.value.step == "once two is mended: llmesh restart two three"
        assert {name: child(home, name).pid == pid for name, pid in before.items()} == {
            "one": False,
            "two": True,
            "three": True,
        }


async def two(home: Home) -> None:
    assert len(marked(f"{MARK}={home.path}")) == 2


HOT = f"""
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("asked to end", os.environ.get({SUCCEEDS!r}), flush=True)))
print("epoch", sys.argv[-1], flush=True)
while True: signal.pause()
"""


def hot(home: Home, probe: Told) -> Program:
    """A program whose processes take over from one another by themselves, once the program `two` answers."""
    return replace(program(home, probe, HOT), epoch="--epoch", needs="two")


async def says(said: list[str], line: str) -> None:
    """As it does a moment after it runs, and not if it is ended before."""
    assert line in said


async def test_a_program_that_could_not_become_ready_is_not_restarted(home: Home) -> None:
    probe, needed = Told(), Told()
    async with running(home, hot(home, probe), program(home, needed, name="two")) as boss:
        before = child(home)
        needed.lacks = lambda _pid: "does not answer"
        [restarted] = await told(boss, "one")
        assert restarted.problem == (
            "one is not replaced: the two, without which no new process becomes ready, does not answer"
        )
        assert child(home).pid == before.pid
        assert before.process.alive()


async def test_after_a_failed_succession_the_old_process_is_replaced_when_another_would_become_ready(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, needed, said = Told(), Told(), list[str]()
    monkeypatch.setattr("llmesh.supervisor.supervise.READY_WITHIN_S", 0.5)
    async with running(home, hot(home, probe), program(home, needed, name="two"), said=said) as boss:
        await eventually(lambda: says(said, "epoch 0"))
        before = child(home)

        def is_gone(_pid: int) -> str:
            # What it needs goes as well.
            needed.lacks = lambda _pid: "does not answer"
            return "is initializing" if "epoch 1" in said else "is slow"

        probe.lacks = is_gone
        [restarted] = await told(boss, "one")
        assert restarted.problem.startswith("one is not replaced: the new process is ")
        assert restarted.problem.endswith("; the old one cannot be succeeded any more")
        # One that is asked to end takes the old one with it.
        assert "asked to end 1" not in said

        async def is_told() -> None:
            assert child(home).state is Condition.UNRESPONSIVE
            assert child(home).last_exit == "its successor did not become ready: to be replaced"

        await eventually(is_told)
        [again] = await told(boss, "one")
        assert "already to be replaced" in again.problem
        assert before.process.alive()
        needed.lacks = lambda _pid: ""

        async def is_another() -> None:
            after = await runs(home)
            assert (after.pid == before.pid, after.restarts) == (False, 1)
            assert said.count("epoch 0") == 2

        await eventually(is_another)
    assert not before.process.alive()


async def test_a_process_that_dies_before_the_one_that_takes_over_from_it_is_started_anew(home: Home) -> None:
    probe, said = Told(), list[str]()
    async with running(home, hot(home, probe), program(home, Told(), name="two"), said=said) as boss:
        await eventually(lambda: says(said, "epoch 0"))
        before = child(home)
        probe.lacks = lambda _pid: "is initializing"
        restarting = asyncio.create_task(told(boss, "one"))

        async def both_run() -> None:
            assert "epoch 1" in said

        await eventually(both_run)
        os.kill(before.pid, signal.SIGKILL)
        [restarted] = await restarting
        assert restarted.problem == (
            "one is not replaced: the new process is initializing; the old one ended by SIGKILL meanwhile"
        )

        async def is_another() -> None:
            assert (await runs(home)).restarts == 1
            assert said.count("epoch 0") == 2

        await eventually(is_another)


async def test_an_unexpected_error_of_a_probe_leaves_the_old_process_alone(home: Home) -> None:
    probe = Told()
    async with running(home, program(home, probe)) as boss:
        before = child(home)
        probe.fails = RuntimeError("odd")
        with pytest.raises(RuntimeError, match="odd"):
            await told(boss)

        async def is_alone() -> None:
            assert [each.pid for each in marked(f"{MARK}={home.path}")] == [before.pid]

        await eventually(is_alone)
        probe.fails = None

        async def answers() -> None:
            assert child(home).answers

        await eventually(answers)
        assert child(home).pid == before.pid


async def test_what_is_to_be_done_before_a_succession_is_undone_where_that_fails(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, done = Told(), list[str]()

    def prepare() -> Callable[[], None]:
        done.append("prepared")
        return lambda: done.append("undone")

    async with running(home, replace(program(home, probe), prepare=prepare)) as boss:
        assert done == []
        assert await told(boss) == [Restarted("one")]
        assert done == ["prepared"]
        probe.lacks = lambda _pid: "is not ready"
        monkeypatch.setattr("llmesh.supervisor.supervise.READY_WITHIN_S", 0.1)
        [restarted] = await told(boss)
        assert restarted.problem
        assert done == ["prepared", "prepared", "undone"]


async def test_restarts_are_asked_for_by_name_over_the_socket(home: Home) -> None:
    probe = Told()
    one, other = program(home, probe), program(home, None, name="two")
    async with running(home, one, other):
        before = child(home).pid
        assert await asyncio.to_thread(lambda: list(ask_restart(home, ["one"]))) == [Restarted("one")]
        after = await eventually(lambda: runs(home))
        assert after.pid != before
        [refused] = await asyncio.to_thread(lambda: list(ask_restart(home, ["two"])))
        assert refused.problem == "two has nothing to show when it is ready"
        with pytest.raises(Problem, match="nothing that runs here is called `three`") as unknown:
            await asyncio.to_thread(lambda: list(ask_restart(home, ["three"])))
        assert unknown.value.step == "there are: one, two"
    with pytest.raises(Problem, match="no mesh is up here"):
        list(ask_restart(home, []))


async def test_what_is_no_request_is_refused(home: Home) -> None:
    async with running(home, program(home, None)):
        long = json.dumps({"restart": ["one" * 2**16]}).encode()
        for line in (b"\n", b"[]\n", b'{"restart": 5}\n', b'{"restart": [["one"]]}\n', b"\xff\n", long + b"\n"):
            answer = await asked(home, line)
            assert ("longer than" if len(line) > 100 else "no request") in answer["problem"]


async def asked(home: Home, line: bytes) -> dict[str, str]:
    """What the supervisor answers to a line."""
    reader, writer = await asyncio.open_unix_connection(home.control_socket)
    writer.write(line)
    try:
        return json.loads(await reader.readline())
    finally:
        writer.close()


async def test_a_restart_that_fails_oddly_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # An error like that of somebody who has left.
    monkeypatch.setattr(Supervisor, "restart", cut_off)
    async with running(home, program(home, None)):
        assert await asked(home, b'{"restart": []}\n') == {
            "problem": "the restart failed: BrokenPipeError('cut off')",
            "step": "see how it is: llmesh status",
        }


def test_an_answer_is_waited_for_as_long_as_another_restart_and_this_one_may_take() -> None:
    one = plan.BOOTSTRAP_TIMEOUT_S + supervise.READY_WITHIN_S + children.HAND_OVER_S
    assert one * 2 <= control.ANSWER_WITHIN_S


async def test_a_process_that_no_longer_answers_is_killed_and_started_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, said = Told(), list[str]()
    # One that works, as one that starts, is given longer.
    monkeypatch.setattr(children, "cpu_ticks", lambda _pid: 7)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    patient = replace(program(home, probe), patience_s=0.001)
    async with running(home, patient, said=said):
        before = child(home)

        async def answers() -> None:
            assert child(home).answers

        await eventually(answers)
        probe.alive = False

        async def is_another() -> None:
            assert child(home).pid not in (0, before.pid)

        await eventually(is_another)
        probe.alive = True
        await eventually(answers)
        assert child(home).last_exit == "did not answer for 0.001 s: killed"
    assert "[llmesh] does not answer" in said


@pytest.mark.parametrize(
    ("alive", "has_started", "busy"),
    [(None, True, False), (False, True, False), (True, False, False), (True, True, True)],
    ids=["has nobody to ask", "starts", "answers, but has not begun", "is busy"],
)
async def test_a_process_is_let_live_that(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    alive: bool | None,  # noqa: FBT001
    has_started: bool,  # noqa: FBT001
    busy: bool,  # noqa: FBT001
) -> None:
    probe = Told()
    probe.alive, probe.has_started = alive, has_started
    ticks = itertools.count(step=1 if busy else 0)
    monkeypatch.setattr(children, "cpu_ticks", lambda _pid: next(ticks))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    patient = program(home, probe)
    async with running(home, patient):
        before = child(home)

        async def asked(more: int) -> None:
            assert probe.asked >= more

        await eventually(lambda: asked(5))
        if alive:
            if has_started:

                async def answers() -> None:
                    assert child(home).answers

                await eventually(answers)
            probe.alive = False
        # As many looks as would have killed it.
        many = probe.asked + 20
        await eventually(lambda: asked(many))
        assert (child(home).pid, child(home).restarts) == (before.pid, 0)


async def test_the_time_that_a_process_has_worked_grows_as_it_works() -> None:
    before = cpu_ticks(os.getpid())

    async def has_grown() -> None:
        assert sum(range(10**5)) > 0
        assert cpu_ticks(os.getpid()) > before

    await eventually(has_grown, pause_s=0)
    assert cpu_ticks(2**22 + 1) == 0


async def test_a_disk_that_hangs_keeps_no_program_from_coming_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, fsync = threading.Event(), os.fsync

    def slow(handle: int) -> None:
        assert hanging.wait(120)
        fsync(handle)

    said: list[str] = []
    code = f"print('up', flush=True); {SLEEPER}"
    async with running(home, program(home, None, code), said=said):
        killed = child(home).pid

        async def is_up() -> None:
            assert "up" in said

        await eventually(is_up)
        monkeypatch.setattr(homes.os, "fsync", slow)
        os.kill(killed, signal.SIGKILL)

        async def is_back() -> None:
            assert said.count("up") == 2

        try:
            await eventually(is_back)
            assert child(home).pid == killed
        finally:
            hanging.set()

        async def is_told() -> None:
            assert (await runs(home)).pid != killed

        await eventually(is_told)
