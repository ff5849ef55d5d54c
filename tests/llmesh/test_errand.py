import asyncio
from collections.abc import Sequence

import pytest

from llmesh.errand import Errand


class Work:
    """Runs that each end when they are let go, with what was there when they began."""

    def __init__(self) -> None:
        self.there = "old"
        self.runs: list[asyncio.Future[None]] = []

    async def __call__(self) -> str:
        seen = self.there
        self.runs.append(asyncio.get_running_loop().create_future())
        await self.runs[-1]
        return seen


async def asked(errand: Errand[str], times: int = 1) -> Sequence[asyncio.Task[str]]:
    """Callers who wait by now."""
    callers = [asyncio.create_task(errand.result()) for _ in range(times)]
    for _ in range(5):
        await asyncio.sleep(0)
    return callers


async def test_those_who_ask_during_a_run_share_the_next_which_sees_what_is_new() -> None:
    work = Work()
    errand = Errand(work)
    (early,) = await asked(errand)
    work.there = "new"
    late = await asked(errand, 20)
    assert len(work.runs) == 1
    work.runs[0].set_result(None)
    assert await early == "old"
    await asked(errand, 0)
    work.runs[1].set_result(None)

    assert {await caller for caller in late} == {"new"}
    assert len(work.runs) == 2


async def test_those_who_give_up_end_no_run() -> None:
    work = Work()
    errand = Errand(work)
    callers = [*await asked(errand), *await asked(errand, 5)]
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    (run,) = work.runs
    assert not run.done()
    run.set_result(None)
    (later,) = await asked(errand)
    work.runs[-1].set_result(None)

    assert await later == "old"
    assert len(work.runs) == 2


async def test_failed_run_is_told_to_who_shared_it_and_tried_again_for_the_next() -> None:
    work = Work()
    errand = Errand(work)
    (early,), late = await asked(errand), await asked(errand, 2)
    work.runs[0].set_exception(OSError("no disk"))
    with pytest.raises(OSError, match="no disk"):
        await early
    await asked(errand, 0)
    work.runs[1].set_result(None)

    assert [await caller for caller in late] == ["old", "old"]
