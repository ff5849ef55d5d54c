"""The supervisor with real processes: small programs that live and die as told."""

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import supervise
from llmesh.supervisor.child import Backoff
from llmesh.supervisor.processes import ProcessId, marked
from llmesh.supervisor.program import Program
from llmesh.supervisor.state import ChildState, Condition, SupervisorState, read_state
from llmesh.supervisor.supervise import MARK, Supervisor, clear_leftovers, held, is_up, shared_memory
from tests.eventually import eventually as bounded

SLEEPER = "import signal; signal.pause()"
TIMEOUT_S = 60.0


def program(home: Home, name: str, code: str = SLEEPER, *, stop_rank: int = 0, grace_s: float = 5.0) -> Program:
    env = {**os.environ, MARK: str(home.path)}
    return Program(
        name=name, argv=(sys.executable, "-c", code), cwd=home.path, env=env, stop_rank=stop_rank, grace_s=grace_s
    )


def supervisor(
    home: Home, *programs: Program, sink: Callable[[str, str], None] = lambda _name, _line: None
) -> Supervisor:
    return Supervisor(home, programs, address="127.0.0.1:1", mesh_file=home.path / "mesh.yaml", sink=sink)


async def eventually(holds: Callable[[], bool]) -> None:
    async def check() -> None:
        assert holds()

    await bounded(check)


def child(home: Home, name: str) -> ChildState:
    state = read_state(home)
    return next((one for one in state.children if one.name == name), ChildState(name)) if state else ChildState(name)


def running(home: Home, *names: str) -> bool:
    return all(child(home, name).state is Condition.RUNNING and child(home, name).process.alive() for name in names)


async def test_a_killed_child_comes_back_alone(home: Home) -> None:
    boss = supervisor(home, program(home, "one"), program(home, "two"))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: running(home, "one", "two"))
        before = child(home, "two").pid
        killed = child(home, "one").pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: running(home, "one") and child(home, "one").pid != killed)
        assert (child(home, "one").restarts, child(home, "one").last_exit) == (1, "ended by SIGKILL")
        assert (child(home, "two").restarts, child(home, "two").pid) == (0, before)
        boss.stop()
    assert marked(f"{MARK}={home.path}") == []


async def test_a_child_ended_by_a_signal_without_a_name_comes_back(home: Home) -> None:
    boss = supervisor(home, program(home, "one"))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: running(home, "one"))
        os.kill(child(home, "one").pid, signal.SIGRTMIN + 6)
        await eventually(lambda: running(home, "one") and child(home, "one").restarts == 1)
        assert child(home, "one").last_exit == f"ended by signal {signal.SIGRTMIN + 6}"
        boss.stop()


async def test_a_first_restart_is_made_at_once(home: Home, record_property: Callable[[str, object], None]) -> None:
    said: list[str] = []
    boss = supervisor(home, program(home, "one"), sink=lambda _name, line: said.append(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: running(home, "one"))
        killed, at = child(home, "one").pid, time.monotonic()
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: running(home, "one") and child(home, "one").pid != killed)
        record_property("restarted_after_ms", round((time.monotonic() - at) * 1000))
        assert said == [f"[llmesh] ended by SIGKILL; starting again in {Backoff().first_s:g} s"]
        boss.stop()


async def test_a_program_that_cannot_stay_up_backs_off_and_says_why(home: Home) -> None:
    said: list[str] = []
    boss = supervisor(
        home,
        program(home, "one", "import sys; print('no config'); sys.exit(3)"),
        sink=lambda _name, line: said.append(line),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: child(home, "one").restarts >= 2)
        boss.stop()
    assert "no config" in said
    assert "[llmesh] exited with 3; starting again in 0.2 s" in said
    assert "[llmesh] exited with 3; starting again in 0.4 s" in said
    assert "no config" in (home.logs / "one.log").read_text()


@pytest.mark.parametrize(
    ("last_s", "lived_s", "pause_s"),
    [(0, 0.1, 0.2), (0.2, 0.1, 0.4), (6.4, 0.1, 10), (10, 0.1, 10), (10, 30, 0.2)],
    ids=["first", "doubles", "is capped", "stays capped", "starts over after a healthy life"],
)
def test_pauses_double_up_to_ten_seconds(last_s: float, lived_s: float, pause_s: float) -> None:
    assert Backoff().next(last_s, lived_s=lived_s) == pytest.approx(pause_s)


async def test_programs_end_in_order_of_their_ranks(home: Home) -> None:
    code = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("ended", flush=True)))
print("up", flush=True)
while True: signal.pause()
"""
    said: list[tuple[str, str]] = []
    programs = [program(home, name, code, stop_rank=rank) for name, rank in (("last", 2), ("first", 0), ("second", 1))]
    boss = supervisor(home, *programs, sink=lambda name, line: said.append((name, line)))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: [line for _, line in said].count("up") == 3)
        boss.stop()
    assert [name for name, line in said if line == "ended"] == ["first", "second", "last"]


async def test_a_program_that_will_not_end_is_killed_after_its_grace(home: Home) -> None:
    code = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: signal.pause()
"""
    said: list[str] = []
    boss = supervisor(home, program(home, "one", code, grace_s=0.2), sink=lambda _name, line: said.append(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: "up" in said)
        boss.stop()
    assert said[-1] == "[llmesh] did not end within 0.2 s: killed"
    assert marked(f"{MARK}={home.path}") == []


async def test_what_a_program_started_ends_with_it(home: Home) -> None:
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print("up", flush=True)
{SLEEPER}
"""
    said: list[str] = []
    boss = supervisor(home, program(home, "one", code), sink=lambda _name, line: said.append(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: "up" in said)
        boss.stop()
    assert marked(f"{MARK}={home.path}") == []


async def test_what_a_program_writes_is_for_its_owner_alone(home: Home) -> None:
    boss = supervisor(home, program(home, "one", f"open('calls', 'w'); {SLEEPER}"))
    written = home.path / "calls"
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(written.exists)
        boss.stop()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (written, home.logs / "one.log")} == {0o600}


async def test_a_missing_program_is_reported_and_tried_again(home: Home) -> None:
    said: list[str] = []
    missing = Program(name="one", argv=("/nowhere/at-all",), cwd=home.path)
    boss = supervisor(home, missing, sink=lambda _name, line: said.append(line))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: child(home, "one").restarts >= 1)
        boss.stop()
    assert "cannot run `/nowhere/at-all`: No such file or directory" in said


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"argv": (sys.executable, "-c", "#" * 2**18)}, "Argument list too long"),
        ({"argv": (sys.executable, "-c", "\0")}, "embedded null byte"),
        ({"cwd": Path("/nowhere/at-all")}, "its folder `/nowhere/at-all` is not there"),
    ],
    ids=["too long", "a null byte", "no folder"],
)
async def test_a_program_that_cannot_be_started_stops_no_other(home: Home, flaw: dict[str, Any], said: str) -> None:
    boss = supervisor(home, replace(program(home, "one"), **flaw), program(home, "two"))
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: child(home, "one").restarts >= 1 and running(home, "two"))
        assert child(home, "one").last_exit == f"cannot be started: {said}"
        boss.stop()


async def test_after_a_crash_nothing_is_left_running(home: Home) -> None:
    boss = supervisor(home, program(home, "one"), program(home, "two"))

    async def crash() -> None:
        await eventually(lambda: running(home, "one", "two"))
        raise RuntimeError("crashed")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="crashed")):
        await boss.run(crash)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert marked(f"{MARK}={home.path}") == []


async def test_work_beside_the_programs_is_ended_with_them(home: Home) -> None:
    boss = supervisor(home, program(home, "one"))
    ended = asyncio.Event()

    async def beside() -> None:
        try:
            boss.stop()
            await asyncio.Event().wait()
        finally:
            ended.set()

    await boss.run(beside)
    assert ended.is_set()


def test_only_one_supervisor_holds_a_mesh_directory(home: Home) -> None:
    with held(home):
        assert is_up(home)
        with pytest.raises(Problem, match="already up"), held(home):
            pytest.fail("held twice")
    assert not is_up(home)


def test_who_only_asks_whether_a_mesh_is_up_does_not_keep_one_from_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (home.state / "supervisor.lock").open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)

        def let_go(_seconds: float) -> None:
            fcntl.flock(asking, fcntl.LOCK_UN)

        monkeypatch.setattr(supervise.time, "sleep", let_go)
        with held(home):
            assert is_up(home)


BOSS = """
import asyncio, sys
from pathlib import Path
from llmesh.home import Home
from llmesh.supervisor.program import Program
from llmesh.supervisor.supervise import MARK, Supervisor, held
home = Home.find(sys.argv[1])
env = {MARK: str(home.path)}
argv = (sys.executable, "-c", sys.argv[2])
programs = [Program(name=name, argv=argv, cwd=home.path, env=env) for name in ("one", "two")]
said = lambda name, line: print(name, line, flush=True)
with held(home):
    asyncio.run(Supervisor(home, programs, address="a", mesh_file=Path("m"), sink=said).run())
"""


def boss_process(home: Home) -> "subprocess.Popen[str]":
    """A supervisor in a process of its own, once both of its programs have printed `up`."""
    code = f"print('up', flush=True); {SLEEPER}"
    process = subprocess.Popen([sys.executable, "-c", BOSS, str(home.path), code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert sorted(process.stdout.readline() for _ in range(2)) == ["one up\n", "two up\n"]
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_leaves_no_process(home: Home, number: signal.Signals) -> None:
    with boss_process(home) as process:
        assert len(marked(f"{MARK}={home.path}")) == 2
        # As Envoy does.
        shared_memory(home).touch()
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 0
    assert not shared_memory(home).exists()
    assert marked(f"{MARK}={home.path}") == []
    assert read_state(home) is None


def test_killing_the_supervisor_leaves_no_process(home: Home) -> None:
    with boss_process(home) as process:
        left = marked(f"{MARK}={home.path}")
        process.kill()
        process.wait(TIMEOUT_S)
    assert len(left) == 2
    deadline = time.monotonic() + TIMEOUT_S
    while any(one.alive() for one in left) and time.monotonic() < deadline:
        os.sched_yield()
    assert marked(f"{MARK}={home.path}") == []
    assert not is_up(home)


async def test_a_program_waits_for_the_file_it_needs(home: Home) -> None:
    needed = home.run / "one.sock"
    later = Program(name="two", argv=(sys.executable, "-c", SLEEPER), cwd=home.path, after=(needed,))
    boss = supervisor(home, program(home, "one"), later)
    async with asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: running(home, "one"))
        assert child(home, "two").state is Condition.STOPPED
        needed.touch()
        await eventually(lambda: running(home, "two"))
        boss.stop()


async def test_a_program_that_still_waits_is_not_started_to_be_stopped(home: Home) -> None:
    said: list[str] = []
    waiting = Program(
        name="one", argv=(sys.executable, "-c", "print('up')"), cwd=home.path, after=(home.run / "never",)
    )
    boss = supervisor(home, waiting, sink=lambda _name, line: said.append(line))
    boss.stop()
    await boss.run()
    assert said == []


def test_sockets_and_leases_of_the_dead_are_forgotten(home: Home) -> None:
    draft = home.state / ".leases.json.x1"
    for path in (home.xds_socket, home.tool_socket("dead", pid=2**22), home.tool_socket("alive"), home.leases, draft):
        path.touch()
    clear_leftovers(home)
    assert [path.name for path in home.run.glob("**/*.sock")] == [home.tool_socket("alive").name]
    assert not home.leases.exists()
    assert not draft.exists()


def test_leftovers_are_ended_and_named(home: Home) -> None:
    env = {**os.environ, MARK: str(home.path)}
    with subprocess.Popen([sys.executable, "-c", SLEEPER], env=env) as process:
        found = ProcessId.of(process.pid)
        assert found
        left = ChildState("tickets", Condition.RUNNING, pid=found.pid, start_ticks=found.start_ticks)
        SupervisorState(pid=1, start_ticks=0, address="a", mesh_file="m", since=0, children=(left,)).write(home)
        assert clear_leftovers(home) == ["tickets"]
        assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    assert read_state(home) is None


def test_a_pid_that_is_now_another_process_is_left_alone(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as process:
        left = ChildState("tickets", Condition.RUNNING, pid=process.pid, start_ticks=1)
        SupervisorState(pid=1, start_ticks=0, address="a", mesh_file="m", since=0, children=(left,)).write(home)
        assert clear_leftovers(home) == []
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize(
    "content", ["", "{", json.dumps({"pid": 1}), "[]"], ids=["empty", "torn", "incomplete", "a list"]
)
def test_a_damaged_state_reads_as_none(home: Home, content: str) -> None:
    home.supervisor.write_text(content)
    assert read_state(home) is None
