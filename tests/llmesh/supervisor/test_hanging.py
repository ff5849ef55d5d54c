"""Processes that hang, or seem to: what is killed, and what is let live."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from dataclasses import replace

import pytest

from llmesh import home as homes
from llmesh.home import Home
from llmesh.supervisor import child as children
from llmesh.supervisor import supervise
from llmesh.supervisor.processes import cpu_ticks
from llmesh.supervisor.state import Condition
from llmesh.supervisor.supervise import Supervisor
from tests.eventually import eventually
from tests.llmesh.supervisor.programs import SLEEPER, Told, child, program, running, runs

pytestmark = pytest.mark.usefixtures("quick")


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


async def test_what_runs_in_the_background_begins_once_the_others_answer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "BACKGROUND_AFTER_S", 3600)
    probe = Told()
    probe.alive = None
    second = replace(program(home, None, name="second"), background=True)
    boss = Supervisor(
        home, [program(home, probe), second], address="", mesh_file=home.path, sink=lambda _name, _line: None
    )
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(boss.run())
        await eventually(lambda: runs(home, "one"))
        asked = probe.asked

        async def was_asked_again() -> None:
            assert probe.asked > asked

        await eventually(was_asked_again)
        assert child(home, "second").state is Condition.STOPPED
        probe.alive = True
        await eventually(lambda: runs(home, "second"))
        boss.stop()
