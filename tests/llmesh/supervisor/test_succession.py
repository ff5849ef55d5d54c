"""A program's processes that succeed one another without a gap."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from llmesh.home import SUCCEEDS, Home
from llmesh.problem import Problem
from llmesh.supervisor.child import Backoff
from llmesh.supervisor.control import Restarted, ask_restart
from llmesh.supervisor.processes import marked
from llmesh.supervisor.program import Program
from llmesh.supervisor.state import Condition
from llmesh.supervisor.supervise import MARK
from tests.eventually import eventually
from tests.llmesh.supervisor.programs import SLEEPER, Told, child, program, running, runs, told

pytestmark = pytest.mark.usefixtures("quick")


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


async def test_a_restart_takes_up_what_the_mesh_file_says_by_now(home: Home) -> None:
    said, planned = list[str](), [program(home, Told())]
    async with running(home, *planned, program(home, Told(), name="two"), said=said, replan=lambda: planned) as boss:
        planned[:] = [program(home, Told(), f"print('as it is planned now', flush=True); {SLEEPER}")]
        assert await told(boss, "two") == [Restarted("two")]
        assert said == []
        assert await told(boss, "one") == [Restarted("one")]
        await eventually(lambda: says(said, "as it is planned now"))


async def test_a_restart_of_what_a_mesh_file_that_cannot_be_read_names_changes_nothing(home: Home) -> None:
    def replan() -> Sequence[Program]:
        raise Problem("mesh.yaml:3: no such key", "mend it")

    async with running(home, program(home, Told()), replan=replan) as boss:
        before = child(home)
        with pytest.raises(Problem, match="no such key"):
            await told(boss)
        assert child(home).pid == before.pid


async def test_a_restart_of_what_does_not_run_ends_the_pause_before_its_next_start(home: Home) -> None:
    async with running(home, program(home, Told()), backoff=Backoff(first_s=3600, most_s=3600)) as boss:
        os.kill(child(home).pid, signal.SIGKILL)

        async def pauses() -> None:
            assert child(home).state is Condition.BACKING_OFF

        await eventually(pauses)
        [restarted] = await told(boss)
        assert restarted.problem == "one does not run: ended by SIGKILL"
        assert restarted.step == "it is started at once; see how it is: llmesh status"
        await eventually(lambda: runs(home))


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
