"""When a fan-out through the real Envoy ends, and what is told until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from tests.gateway.fanout.behaviours import answer_late, fails
from tests.gateway.fanout.world import (
    EIGHT,
    OPEN,
    any_of,
    eight,
    hang,
    passages,
    refused,
    rpc,
    told_as,
    world,
)


async def test_the_first_that_answers_ends_it_and_the_others_are_let_go() -> None:
    async with eight() as running:
        for name in EIGHT[1:]:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang

        told = await running.fan_out(completion=pb.COMPLETION_FIRST_OK)

        assert told.codes["Tool0"] == 0
        cancelled = grpc.StatusCode.CANCELLED.value[0]
        assert [code for name, code in told.codes.items() if name != "Tool0"] == [cancelled] * 7
        ends = pb.Summary(end=pb.Summary.END_ENOUGH, met=True, asked_count=8, answered_count=1, cancelled_count=7)
        assert told.summary == ends
        await running.released()


async def test_a_quorum_ends_it_once_it_is_there_or_out_of_reach() -> None:
    async with eight() as running:
        for name in EIGHT[3:]:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang
        told = await running.fan_out(completion=pb.COMPLETION_QUORUM, quorum=3)
        assert (told.summary.end, told.summary.answered_count, told.summary.met) == (pb.Summary.END_ENOUGH, 3, True)

        for name in EIGHT[:2]:
            running.tools.behaviours[f"/{name}/Retrieve"] = fails(grpc.StatusCode.FAILED_PRECONDITION)
        told = await running.fan_out(completion=pb.COMPLETION_QUORUM, quorum=7)
        assert (told.summary.end, told.summary.met) == (pb.Summary.END_OUT_OF_REACH, False)
        assert told.summary.failed_count == 2
        await running.released()


async def test_best_effort_gives_what_has_come_by_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_late(monkeypatch)
    async with eight() as running:
        await running.fan_out()
        for name in EIGHT[6:]:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang
        merge = options.Merge(concatenate=options.Concatenate(field="passages"))

        told = await running.fan_out(completion=pb.COMPLETION_BEST_EFFORT, timeout_s=6, merge=merge)

        late = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert told.codes == {f"Tool{index}": 0 if index < 6 else late for index in range(8)}
        assert (told.summary.end, told.summary.met) == (pb.Summary.END_DEADLINE, True)
        assert (told.summary.answered_count, told.summary.cancelled_count) == (6, 2)
        merged = RetrieveResponse()
        assert told.summary.merged.Unpack(merged)
        assert [each.text for each in merged.passages] == [f"/{name}/Retrieve" for name in EIGHT[:6]]
        await running.released()


async def test_a_tool_that_takes_the_time_that_it_is_told_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_late(monkeypatch)
    async with world() as running:
        await running.publish(running.tool(EIGHT[0]))
        left: list[float] = []

        async def looks(_data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            left.append(context.time_remaining())
            return passages(("one", 1))

        running.tools.behaviours[f"/{EIGHT[0]}/Retrieve"] = looks
        await running.fan_out(timeout_s=20)

    # The caller's, less most of what is kept to answer.
    assert 10 < left[0] <= 19


async def test_who_states_no_deadline_has_half_a_minute_and_who_does_has_it() -> None:
    async with world() as running:
        await running.publish(running.tool(EIGHT[0], rpc(options="deadline { seconds: 600 }")))
        left: list[float] = []

        async def looks(_data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            left.append(context.time_remaining())
            return passages(("one", 1))

        running.tools.behaviours[f"/{EIGHT[0]}/Retrieve"] = looks
        asked = pb.FanOutRequest(request=any_of(RetrieveRequest(query="a")))
        for timeout_s in (None, 300):
            async for _ in running.send(asked, timeout_s=timeout_s):
                pass

        # gRPC rounds what it says of a deadline up.
        assert 15 < left[0] <= 31
        assert 200 < left[1] <= 302


async def test_where_all_must_answer_a_slow_one_leaves_the_answers_of_the_others_but_no_merged_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer_late(monkeypatch)
    async with eight() as running:
        await running.fan_out()
        running.tools.behaviours[f"/{EIGHT[7]}/Retrieve"] = hang

        told = await running.fan_out(timeout_s=6, merge=options.Merge())

        assert sum(code == 0 for code in told.codes.values()) == 7
        assert (told.summary.end, told.summary.met) == (pb.Summary.END_DEADLINE, False)
        assert not told.summary.HasField("merged")
        assert told.summary.unmerged == "not enough have answered"


async def test_an_answer_is_told_before_others_have_come() -> None:
    async with eight() as running:
        for name in EIGHT[1:]:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang

        call = running.call()
        first = await anext(aiter(call))

        assert [(each.tool, each.status.code) for each in first.branches] == [(EIGHT[0], 0)]
        call.cancel()
        await running.released()


async def test_items_of_streams_come_in_the_order_of_their_branch() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name, rpc("Stream", streams=True)) for name in EIGHT), policy=OPEN)
        for name in EIGHT:
            running.tools.streams[f"/{name}/Stream"] = counts

        told = await running.fan_out(RetrieveRequest(query="ten"))

        for items in told.items.values():
            read = [RetrieveResponse() for _ in items]
            assert all(each.Unpack(message) for each, message in zip(items, read, strict=True))
            assert [message.passages[0].text for message in read] == [str(number) for number in range(10)]
        assert told.summary.answered_count == 8
        running.tools.calls.clear()
        error = await refused(running, merge=options.Merge())
        assert told_as(error) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_MERGE")


async def test_a_stream_that_fails_tells_what_came_before() -> None:
    async with world() as running:
        await running.publish(running.tool(EIGHT[0], rpc("Stream", streams=True)), policy=OPEN)

        async def breaks_off(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            yield passages(("one", 1))
            await context.abort(grpc.StatusCode.DATA_LOSS, "no more")

        running.tools.streams[f"/{EIGHT[0]}/Stream"] = breaks_off

        told = await running.fan_out()

        (branch,) = told.branches.values()
        assert (branch.status.code, branch.status.message) == (grpc.StatusCode.DATA_LOSS.value[0], "no more")
        assert len(told.items[f"{EIGHT[0]}/Stream"]) == 1


async def counts(_data: bytes, _context: object) -> AsyncIterator[bytes]:
    """Ten answers, each after others had a turn."""
    for number in range(10):
        await asyncio.sleep(0)
        yield passages((str(number), 0.5))
