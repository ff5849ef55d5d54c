"""What a fan-out keeps, and whom it waits for: no more than somebody is still to be told of."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from contextlib import aclosing
from pathlib import Path

from gateway.fanout.allowances import Allowance, retries
from gateway.fanout.completion import progress
from gateway.fanout.run import Run
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from tests.eventually import eventually
from tests.gateway.fanout.hand_legs import (
    INTERNAL,
    HandLegs,
    order_of,
    started,
)
from tests.gateway.fanout.test_legs import hanging
from tests.gateway.fanout.world import EIGHT, passages


async def test_nothing_is_kept_of_an_answer_once_it_has_been_told(legs: HandLegs) -> None:
    running = started(8, legs)
    async with aclosing(running.messages):
        news = await running.begun()
        tracemalloc.start()
        try:
            for name in EIGHT[:7]:
                legs.answer(name, size=1 << 20)
                await news
                news = asyncio.ensure_future(anext(running.messages))
                await asyncio.sleep(0)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        news.cancel()
        await asyncio.wait([news])

    assert kept < 1 << 20


async def test_once_enough_have_answered_the_others_are_given_up_however_slowly_that_is_read(legs: HandLegs) -> None:
    running = started(3, legs, completion=pb.COMPLETION_FIRST_OK)
    async with aclosing(running.messages):
        first = await running.begun()
        legs.answer(EIGHT[0])
        await first

        # Each is a call that is to be told as ended, or that nobody waits for.
        assert legs.released == set(EIGHT[:3])


async def test_a_run_that_is_over_is_not_kept_by_legs_that_are_broken_off_later(tmp_path: Path) -> None:
    async with hanging(tmp_path) as (real, server):
        real.lines.resets = lambda: Allowance(1, 0.25, 0)
        order = order_of(1, streams=False)
        made = Run(real, order, progress(pb.COMPLETION_ALL, 0, 1), retries=retries(), gathered=None)
        messages = made.messages()
        waiting = asyncio.ensure_future(anext(messages))

        async def is_open() -> None:
            assert server.open.total() == 1

        await eventually(is_open)
        waiting.cancel()
        await asyncio.wait([waiting])
        await messages.aclose()
        kept = weakref.ref(made)
        del made, messages, waiting
        gc.collect()

        assert real.count == 1
        assert kept() is None


async def test_a_stream_that_gives_what_is_no_response_ends_as_one_that_lies(legs: HandLegs) -> None:
    running = started(2, legs, streams=True)
    async with aclosing(running.messages):
        first = await running.begun()
        liar, honest = (legs.streams[name] for name in EIGHT[:2])
        for item in (passages(("true", 1)), b"\xff\xff\xff", passages(("late", 1))):
            liar.given.put_nowait(item)
        honest.given.put_nowait(passages(("true", 1)))
        for stream in (liar, honest):
            stream.given.put_nowait(b"")
        told = await running.rest(await first)

    assert told.codes == {EIGHT[0]: INTERNAL, EIGHT[1]: 0}
    assert told.responses == {EIGHT[0]: 1, EIGHT[1]: 1}
