"""When a fan-out ends, and what it tells, with legs that end exactly when and as a test says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import pytest

from gateway.fanout import merge, room, run
from gateway.fanout.allowances import Allowance
from gateway.fanout.merge import Gathered, read_merge
from gateway.fanout.room import Room
from gateway.http2.reply import Answer
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveResponse
from tests.eventually import eventually
from tests.gateway.fanout.hand_legs import (
    CONCATENATE,
    EXHAUSTED,
    LATE,
    SEEN,
    UNAVAILABLE,
    HandLegs,
    started,
)
from tests.gateway.fanout.world import EIGHT, passages


async def test_an_answer_that_waits_for_others_when_the_deadline_comes_is_told(
    legs: HandLegs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "GATHER_S", 3600)
    running = started(3, legs, completion=pb.COMPLETION_BEST_EFFORT)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0])
        running.expire()
        told = await running.rest(await first)

    assert told.codes == {EIGHT[0]: 0, EIGHT[1]: LATE, EIGHT[2]: LATE}
    assert told.responses == {EIGHT[0]: 1, EIGHT[1]: 0, EIGHT[2]: 0}
    assert (running.run.end, running.run.progress.answered) == (pb.Summary.END_DEADLINE, 1)


async def test_who_pauses_past_the_deadline_is_told_all_that_came_before_it_and_nothing_after(legs: HandLegs) -> None:
    gathered = Gathered(read_merge(CONCATENATE, RetrieveResponse))
    running = started(6, legs, completion=pb.COMPLETION_BEST_EFFORT, gathered=gathered)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0])
        before = await first
        for name in EIGHT[1:5]:
            legs.answer(name, size=700_000)
        running.expire()
        legs.answer(EIGHT[5])
        told = await running.rest(before)

    assert told.codes == {**dict.fromkeys(EIGHT[:5], 0), EIGHT[5]: LATE}
    assert set(told.responses.values()) == {0, 1}
    # Each is larger than half a message.
    assert len(told.messages) >= 5
    assert sorted(each.name for each in gathered.answers) == [f"{name}/Retrieve" for name in EIGHT[:5]]
    assert running.run.progress.answered == 5
    assert legs.room.held_bytes == 0


async def test_one_that_had_ended_when_the_first_was_told_is_not_told_as_cancelled(legs: HandLegs) -> None:
    running = started(3, legs, completion=pb.COMPLETION_FIRST_OK)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0])
        legs.asked[EIGHT[1]](Answer(UNAVAILABLE, "gone"))
        told = await running.rest(await first)

    cancelled = grpc.StatusCode.CANCELLED.value[0]
    assert told.codes == {EIGHT[0]: 0, EIGHT[1]: UNAVAILABLE, EIGHT[2]: cancelled}
    # Nor is it sent again.
    assert legs.tried == 3
    assert (running.run.progress.answered, running.run.progress.failed) == (1, 1)


async def test_items_that_wait_when_the_deadline_comes_are_told(
    legs: HandLegs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "GATHER_S", 3600)
    running = started(1, legs, streams=True)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.streams[EIGHT[0]].given.put_nowait(passages(("one", 1)))

        async def held() -> None:
            assert legs.room.held_bytes

        await eventually(held)
        running.expire()
        told = await running.rest(await first)

    assert told.codes == {EIGHT[0]: LATE}
    assert told.responses == {EIGHT[0]: 1}


async def test_latency_ends_with_the_branch_however_late_it_is_told(legs: HandLegs) -> None:
    running = started(2, legs)
    began_s = asyncio.get_running_loop().time()
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0])
        before = await first
        legs.answer(EIGHT[1])
        ended_s = asyncio.get_running_loop().time()

        async def later() -> None:
            assert asyncio.get_running_loop().time() > ended_s + 0.1

        await eventually(later)
        told = await running.rest(before)

    (last,) = told.messages[-1].branches
    assert last.latency.ToMicroseconds() / 1e6 <= ended_s - began_s + 0.001


async def test_a_branch_that_may_not_be_sent_has_no_attempt(legs: HandLegs) -> None:
    legs.refused = {0}
    running = started(1, legs)
    told = await running.rest()

    assert told.codes == {EIGHT[0]: EXHAUSTED}
    assert told.messages[0].branches[0].attempt_count == 0


async def test_a_branch_that_may_not_be_sent_again_ends_as_it_had(legs: HandLegs) -> None:
    legs.refused = {1}
    running = started(1, legs)
    first = await running.begun()
    legs.asked[EIGHT[0]](Answer(UNAVAILABLE, "gone"))
    told = await running.rest(await first)

    assert legs.tried == 2
    assert told.codes == {EIGHT[0]: UNAVAILABLE}
    assert told.messages[0].branches[0].attempt_count == 1
    assert repr(legs.room) == repr(Room())


async def test_once_a_merge_keeps_nothing_all_that_was_told_leaves_room(
    legs: HandLegs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "GATHERED_MOST_BYTES", 2000)
    running = started(3, legs, gathered=Gathered(read_merge(CONCATENATE, RetrieveResponse)))
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0], size=600)
        await first
        second = asyncio.ensure_future(anext(running.messages))
        legs.answer(EIGHT[1], size=600)
        await second
        assert legs.room.held_bytes > 2000
        third = asyncio.ensure_future(anext(running.messages))

        async def let_go() -> None:
            assert legs.room.held_bytes == 0

        await eventually(let_go)
        legs.answer(EIGHT[2])
        await third


async def test_how_branches_ended_is_held_until_it_has_been_told_and_only_as_far_as_there_is_room(
    legs: HandLegs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "HELD_OF_A_CALLER_BYTES", 100_000)
    running = started(4, legs)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.asked[EIGHT[0]](Answer(UNAVAILABLE, "x" * 60_000, head=SEEN))
        before = await first
        assert 60_000 < legs.room.held_bytes < 61_000
        legs.asked[EIGHT[1]](Answer(UNAVAILABLE, "x" * 60_000, head=SEEN))
        legs.asked[EIGHT[2]](Answer(0, "", passages(("x", 1)), SEEN, {b"x-llmesh-provenance": b"x" * 60_000}))
        legs.answer(EIGHT[3])
        told = await running.rest(before)

    assert told.codes == {EIGHT[0]: UNAVAILABLE, EIGHT[1]: EXHAUSTED, EIGHT[2]: EXHAUSTED, EIGHT[3]: 0}
    assert told.responses == {EIGHT[0]: 0, EIGHT[1]: 0, EIGHT[2]: 0, EIGHT[3]: 1}
    assert sum(message.ByteSize() for message in told.messages) < 70_000
    assert repr(legs.room) == repr(Room())


async def test_how_a_leg_ended_whose_branch_is_sent_again_is_held_no_more(legs: HandLegs) -> None:
    running = started(1, legs)
    first = await running.begun()
    legs.asked[EIGHT[0]](Answer(UNAVAILABLE, "x" * 60_000))

    async def is_sent_again() -> None:
        assert legs.tried == 2

    await eventually(is_sent_again)
    assert legs.room.held_bytes == 0
    legs.answer(EIGHT[0])
    assert (await running.rest(await first)).codes == {EIGHT[0]: 0}


@pytest.mark.parametrize(("refused", "left"), [({1}, 1.0), (set[int](), 0.0)], ids=["not sent again", "sent again"])
async def test_what_is_not_sent_again_after_all_takes_nothing_from_others(
    legs: HandLegs, refused: set[int], left: float
) -> None:
    legs.refused = refused
    shared = Allowance(64, 0.2, 1)
    running = started(1, legs, retries=shared)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.asked[EIGHT[0]](Answer(UNAVAILABLE, "gone"))

        async def tried_again() -> None:
            assert legs.tried == 2

        await eventually(tried_again)
        assert shared.left == left
        if not refused:
            legs.asked[EIGHT[0]](Answer(UNAVAILABLE, "gone"))
        told = await running.rest(await first)

    assert told.codes == {EIGHT[0]: UNAVAILABLE}
