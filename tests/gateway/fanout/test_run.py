"""One fan-out, with legs that end exactly when and as a test says, which no real tool can be made to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Untyped
from typing import cast

import grpc
import pytest

from gateway.fanout import merge, room, run
from gateway.fanout.allowances import retries
from gateway.fanout.branch import Respondent
from gateway.fanout.completion import progress
from gateway.fanout.legs import Leg, Legs, Metadata, Request, Stream
from gateway.fanout.lines import Lines
from gateway.fanout.merge import Gathered, read_merge
from gateway.fanout.room import Room
from gateway.fanout.run import Order, Run
from gateway.fanout.takers import Taker
from gateway.http2.reply import Answer
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveResponse
from llmesh.errors import OverQuota
from tests.eventually import eventually
from tests.gateway.fanout.world import EIGHT, passages, rpc, tool_of

EXHAUSTED, LATE = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
# What Envoy has answered, which is not sent again.
SEEN = {b"x-llmesh-call-id": b"id"}
CONCATENATE = options.Merge(concatenate=options.Concatenate(field="passages"))


@dataclass(eq=False, slots=True)
class Items:
    """A stream that gives what a test puts in, and goes on."""

    given: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue[bytes])

    async def read(self) -> bytes:
        """The next, once there is one."""
        return await self.given.get()


@dataclass(eq=False, slots=True)
class HandLegs(Legs):
    """Legs that a test ends, by the tool asked. refused: which calls are, by their number, from 0."""

    asked: dict[str, Callable[[Answer], None]] = field(default_factory=dict[str, Callable[[Answer], None]])
    streams: dict[str, Items] = field(default_factory=dict[str, Items])
    refused: set[int] = field(default_factory=set[int])
    tried: int = 0

    def ask(
        self,
        path: str,
        request: Request,
        metadata: Metadata,
        *,
        caller: Hashable,
        holds: Callable[[int], bool],
        ended: Callable[[Answer], None],
    ) -> Leg:
        """As the real one, but sends nothing."""
        del request, metadata
        self._refuse()
        leg = self._begin(path, caller, streams=False)

        def end(answer: Answer) -> None:
            if answer.response is not None:
                assert holds(len(answer.response))
            self._end(leg)
            ended(answer)

        self.asked[leg.tool] = end
        return leg

    def read(
        self,
        path: str,
        request: Request,
        metadata: Metadata,
        *,
        caller: Hashable,
        reading: Callable[[Leg, Stream], Coroutine[None, None, None]],
    ) -> Leg:
        """As the real one, but sends nothing."""
        del request, metadata
        self._refuse()
        leg = self._begin(path, caller, streams=True)
        items = self.streams[leg.tool] = Items()
        reader = asyncio.create_task(reading(leg, cast("Stream", items)))
        self._readers.add(reader)
        return leg

    def _refuse(self) -> None:
        self.tried += 1
        if self.tried - 1 in self.refused:
            raise OverQuota("no more", retry_after_s=1, quota="branches of a tool")

    def answer(self, name: str, text: str = "found", *, size: int = 0) -> None:
        """A leg ends with one passage. size: about how long."""
        self.asked[name](Answer(0, "", passages((text + "x" * size, 1)), {b"x-llmesh-call": b"id"}))

    async def stop(self) -> None:
        """End what reads."""
        for reader in self._readers:
            reader.cancel()
        await self.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What a run has told."""

    messages: Sequence[pb.FanOutResponse]

    @property
    def codes(self) -> dict[str, int]:
        """Of the branches that have ended, by tool."""
        branches = [each for message in self.messages for each in message.branches if each.HasField("status")]
        codes = {each.tool: each.status.code for each in branches}
        assert len(codes) == len(branches)
        return codes

    @property
    def responses(self) -> dict[str, int]:
        """How many each tool's branch gave."""
        counts: dict[str, int] = {}
        for each in (each for message in self.messages for each in message.branches):
            counts[each.tool] = counts.get(each.tool, 0) + len(each.responses)
        return counts


@dataclass(frozen=True, slots=True)
class Running:
    """A run whose messages are taken one by one."""

    run: Run
    legs: HandLegs
    messages: AsyncGenerator[pb.FanOutResponse]

    def expire(self) -> None:
        """Its deadline has come."""
        self.run._expire()  # pyright: ignore[reportPrivateUsage]

    async def rest(self, *before: pb.FanOutResponse) -> Told:
        """What it tells to its end."""
        return Told([*before, *[message async for message in self.messages]])

    async def begun(self) -> asyncio.Task[pb.FanOutResponse]:
        """Its first message, to be waited for; all legs are sent."""
        first = asyncio.ensure_future(anext(self.messages))

        async def all_are_sent() -> None:
            assert self.legs.tried >= self.run.progress.asked

        await eventually(all_are_sent)
        return first


def started(
    count: int, legs: HandLegs, *, completion: Untyped = pb.COMPLETION_ALL, streams: bool = False, **facts: Untyped
) -> Running:
    """A run over so many tools that read, with an hour. facts: quorum, gathered."""
    method = rpc(streams=streams)
    tools = [tool_of(name, method, address="unix:none") for name in EIGHT[:count]]
    takers = [Taker(tool, tool.methods[0], f"{tool.service}/{tool.methods[0].name}") for tool in tools]
    respondents = [Respondent(taker, RetrieveResponse) for taker in takers]
    metadata = {each.path: Metadata(()) for each in respondents}
    deadline_s = asyncio.get_running_loop().time() + 3600
    order = Order(respondents, Request(b""), metadata, caller="sam", deadline_s=deadline_s)
    begun = progress(completion, facts.get("quorum", 0), count)
    made = Run(legs, order, begun, retries=retries(), gathered=facts.get("gathered"))
    return Running(made, legs, made.messages())


@pytest.fixture
async def legs(tmp_path: Path) -> AsyncGenerator[HandLegs]:
    made = HandLegs(Lines(tmp_path / "none.sock"))
    yield made
    await made.stop()


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
