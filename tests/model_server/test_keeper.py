"""What dies is started again, and whoever asks meanwhile is told to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import Unavailable
from model_server import keeper
from model_server.keeper import Keeper
from tests.eventually import eventually


class Thing:
    """Lives until it is told to die."""

    context_length, capabilities, dimension = 1, tuple[pb.ModelCapability.ValueType, ...](), 0

    def __init__(self) -> None:
        self.dying = asyncio.Event()
        self.closed = False
        # Set while it may end.
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def wait_for_death(self) -> None:
        await self.dying.wait()

    async def close(self) -> None:
        await self.may_close.wait()
        self.closed = True


class Kept:
    """A keeper, what it has started, and what it said."""

    def __init__(self) -> None:
        self.started: list[Thing] = []
        self.told: list[bool] = []
        self.fail = False
        self.failed = 0
        self.keeper = Keeper("thing", self._start, tell=self.told.append)

    async def _start(self) -> Thing:
        if self.fail:
            self.failed += 1
            raise RuntimeError("no room")
        self.started.append(Thing())
        return self.started[-1]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def ready(self, count: int) -> None:
        async def is_there() -> None:
            assert len(self.started) == count
            assert self.keeper.current is self.started[-1]

        await eventually(is_there)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSE_FIRST_S", 0.001)


async def test_what_dies_is_closed_and_another_one_started() -> None:
    kept = Kept()
    async with kept.running():
        await kept.ready(1)
        kept.started[0].dying.set()
        await kept.ready(2)
        assert kept.started[0].closed
        assert kept.keeper.restarts == 1
        assert kept.told == [True, False, True]
    assert kept.started[1].closed
    assert kept.told[-1] is False


async def test_what_does_not_start_is_tried_again() -> None:
    kept = Kept()
    kept.fail = True
    async with kept.running():

        async def has_failed() -> None:
            assert kept.failed >= 2

        await eventually(has_failed)
        with pytest.raises(Unavailable) as told:
            _ = kept.keeper.current
        assert told.value.retry_after_s is not None
        assert told.value.retry_after_s >= 1
        kept.fail = False
        await kept.ready(1)
        assert kept.keeper.restarts == 0


@pytest.mark.parametrize(
    ("healthy_s", "pauses"),
    [(60.0, [0.001, 0.002, 0.004, 0.008, 0.008]), (0.0, [0.001] * 5)],
    ids=["grow", "start anew"],
)
async def test_pauses_grow_up_to_a_most_and_start_anew_after_one_that_lived(
    healthy_s: float, pauses: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "PAUSE_MOST_S", 0.008)
    monkeypatch.setattr(keeper, "HEALTHY_S", healthy_s)
    kept = Kept()
    kept.fail = True
    async with kept.running():

        async def has_failed() -> None:
            assert kept.failed > 5

        await eventually(has_failed)
    told = [vars(each)["after_s"] for each in caplog.records if each.getMessage() == "model starts again"]
    assert told[:5] == pauses


async def test_who_ends_it_while_a_dead_one_is_cleared_away_starts_no_other() -> None:
    kept = Kept()
    task = asyncio.create_task(kept.keeper.run())
    await kept.ready(1)
    dead = kept.started[0]
    dead.may_close.clear()
    dead.dying.set()

    async def is_away() -> None:
        assert kept.told == [True, False]

    await eventually(is_away)
    task.cancel()
    dead.may_close.set()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert (dead.closed, len(kept.started)) == (True, 1)


async def test_one_that_does_not_end_well_keeps_no_other_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Thing) -> None:
        raise RuntimeError("stuck")

    kept = Kept()
    async with kept.running():
        await kept.ready(1)
        with monkeypatch.context() as patched:
            patched.setattr(Thing, "close", fail)
            kept.started[0].dying.set()
            await kept.ready(2)


async def test_one_of_which_nobody_knows_whether_it_lives_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    failures, lives = [RuntimeError("no such process")], Thing.wait_for_death

    async def fail_once(thing: Thing) -> None:
        if failures:
            raise failures.pop()
        await lives(thing)

    monkeypatch.setattr(Thing, "wait_for_death", fail_once)
    kept = Kept()
    async with kept.running():
        await kept.ready(2)
        assert kept.started[0].closed
