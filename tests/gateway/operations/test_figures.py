"""Many who ask for the figures, of an Envoy that takes its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any as Untyped

import pytest

from gateway.operations.figures import SHARED_S, Figures
from llmesh.home import Home
from llmesh.supervisor.state import ChildState
from tests.gateway.fakes import FakeClock


class Envoy:
    """Answers each scrape when it is let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()

    def ask(self, admin: Path, page: str) -> bytes:
        self.asked += 1
        self.may_answer.wait()
        return f"scrape {self.asked}\n".encode()


class Gateway:
    def text(self, *, envoy_answers: bool, processes: Sequence[ChildState]) -> bytes:
        assert processes == ()
        return f"envoy answers: {envoy_answers}\n".encode()


@pytest.fixture
def envoy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Envoy]:
    made = Envoy()
    monkeypatch.setattr("gateway.operations.figures.ask_socket", made.ask)
    yield made
    made.may_answer.set()


def figures_by(clock: FakeClock) -> Figures:
    gateway: Untyped = Gateway()
    return Figures(Home(Path("/nowhere")), gateway, clock=clock)


async def test_many_scrapes_of_a_slow_envoy_are_one_and_keep_no_other_work_waiting(envoy: Envoy) -> None:
    figures = figures_by(FakeClock())
    asking = [asyncio.create_task(figures.text()) for _ in range(200)]
    # As many threads as there are take no part in it.
    await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(64)))
    asking[0].cancel()

    envoy.may_answer.set()
    answers = await asyncio.gather(*asking[1:])

    assert set(answers) == {b"scrape 1\nenvoy answers: True\n"}
    assert envoy.asked == 1
    figures.close()


async def test_an_answer_is_told_for_a_second_and_then_there_is_a_newer_one(envoy: Envoy) -> None:
    clock = FakeClock()
    figures = figures_by(clock)
    envoy.may_answer.set()
    first = await figures.text()
    await clock.pass_(SHARED_S / 2)
    assert await figures.text() == first
    await clock.pass_(SHARED_S / 2)
    assert await figures.text() == b"scrape 2\nenvoy answers: True\n"
    figures.close()
