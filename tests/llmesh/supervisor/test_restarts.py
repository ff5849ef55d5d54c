"""Restarts that somebody asks for, over the supervisor's socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import child as children
from llmesh.supervisor import control, plan, supervise
from llmesh.supervisor.control import Restarted, ask_restart
from llmesh.supervisor.supervise import Supervisor
from tests.eventually import eventually
from tests.llmesh.supervisor.programs import Told, child, program, running, runs

pytestmark = pytest.mark.usefixtures("quick")


async def cut_off(_boss: Supervisor, _names: Sequence[str]) -> AsyncGenerator[Restarted]:
    raise BrokenPipeError("cut off")
    yield Restarted("one")


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
        assert unknown.value.step == "there are: one, two; what is new since the mesh was started runs once it is anew"
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
