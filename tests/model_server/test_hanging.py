"""An engine that answers nothing is busy, or it hangs: its processes tell."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from types import SimpleNamespace
from typing import Any as Untyped

import pytest

from model_server import hanging, vllm_engine
from model_server.hanging import wait_until_it_hangs
from model_server.vllm_engine import VllmEngine
from tests.eventually import eventually

# A process that has one below it, which works from the start, and waits once it is told to.
WORKS = """
import os, signal, sys
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
signal.signal(signal.SIGUSR1, lambda *_: signal.pause())
print(os.getpid(), flush=True)
while True:
    pass
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks looks often."""
    monkeypatch.setattr(hanging, "ASK_EVERY_S", 0.001)
    monkeypatch.setattr(hanging, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def engine() -> Generator[tuple[int, int]]:
    """A process that waits, and one below it that works."""
    with subprocess.Popen((sys.executable, "-c", WORKS), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        yield process.pid, worker
        os.kill(worker, signal.SIGKILL)
        process.kill()


class Asked:
    """What is asked of an engine. answer: what comes of it."""

    def __init__(self, answer: Callable[[], Awaitable[object]]) -> None:
        self.times = 0
        self._answer = answer

    async def __call__(self) -> object:
        self.times += 1
        return await self._answer()


async def nothing() -> object:
    return await asyncio.Event().wait()


async def looks_at(*pids: int) -> int:
    """How often processes that answer nothing are looked at before they are taken for hanging."""
    looks = list[int]()

    def processes() -> list[int]:
        looks.append(1)
        return list(pids)

    async with asyncio.timeout(60):
        await wait_until_it_hangs(nothing, processes)
    return len(looks)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR1], ids=["is stopped", "waits for ever"])
async def test_one_that_answers_nothing_and_does_nothing_hangs(engine: tuple[int, int], how: signal.Signals) -> None:
    parent, worker = engine
    os.kill(worker, how)
    assert await looks_at(parent) < hanging.LOOKS


async def test_one_that_is_busy_does_not_hang_before_the_longest_call_is_over(
    engine: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging, "STILL_LOOKS", 5)
    monkeypatch.setattr(hanging, "LOOKS", 100)
    assert await looks_at(engine[0]) == 100


async def fine() -> object:
    return False


async def dead() -> object:
    raise RuntimeError("dead")


async def cancelled() -> object:
    raise asyncio.CancelledError


@pytest.mark.parametrize("answer", [fine, dead, cancelled])
async def test_one_that_answers_is_asked_again_and_again(answer: Callable[[], Awaitable[object]]) -> None:
    asked = Asked(answer)
    asking = asyncio.create_task(wait_until_it_hangs(asked, list))

    async def often() -> None:
        assert asking.done() or asked.times > 50

    await eventually(often)
    assert not asking.done()
    asking.cancel()


async def test_nothing_follows_where_nothing_is_told_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "STILL_LOOKS", 2)
    monkeypatch.setattr(hanging, "LOOKS", 50)
    assert await looks_at() == 50


async def test_a_watch_that_fails_ends_the_wait_for_the_engines_death(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise OSError("no /proc")

    monkeypatch.setattr(vllm_engine, "wait_until_it_hangs", fails)
    llm: Untyped = SimpleNamespace(
        errored=False,
        is_sleeping=fine,
        model_config=SimpleNamespace(max_model_len=10, get_diff_sampling_param=dict),
        get_tokenizer=lambda: SimpleNamespace(get_added_vocab=dict),
    )
    with pytest.raises(ExceptionGroup) as told:
        await asyncio.wait_for(VllmEngine(llm).wait_for_death(), 60)
    assert told.group_contains(OSError, match="no /proc")
