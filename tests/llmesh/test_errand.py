import asyncio

import pytest

from llmesh.errand import Errand


class Work:
    """Runs that end when they are let go, and count."""

    def __init__(self) -> None:
        self.runs: list[asyncio.Future[str]] = []

    async def __call__(self) -> str:
        self.runs.append(asyncio.get_running_loop().create_future())
        return await self.runs[-1]


async def asked(errand: Errand[str], times: int = 1) -> list[asyncio.Task[str]]:
    """Callers who wait by now; what was to begin by now has."""
    callers = [asyncio.create_task(errand.result()) for _ in range(times)]
    for _ in range(5):
        await asyncio.sleep(0)
    return callers


async def test_those_who_ask_during_a_run_share_the_next_even_if_it_fails() -> None:
    work = Work()
    errand = Errand(work)
    (early,), late = await asked(errand), await asked(errand, 20)
    assert len(work.runs) == 1
    work.runs[0].set_exception(OSError("no disk"))
    with pytest.raises(OSError, match="no disk"):
        await early
    await asked(errand, 0)
    work.runs[1].set_result("new")

    assert {await caller for caller in late} == {"new"}
    assert len(work.runs) == 2


async def test_those_who_give_up_end_no_run() -> None:
    work = Work()
    errand = Errand(work)
    callers = [*await asked(errand), *await asked(errand, 5)]
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)

    assert [run.done() for run in work.runs] == [False]
