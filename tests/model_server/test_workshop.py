"""Callers' types are worked on in processes apart: whatever they take, nobody else waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from llmesh.errors import InvalidCall, Unavailable, Violation
from model_server.workshop import BENCHES, KEPT_BYTES, SpentError, Workshop
from tests.e2e.mesh import REPO
from tests.eventually import eventually
from tests.model_server.models import alive, processes_below


@pytest.fixture
async def workshop() -> AsyncGenerator[Workshop]:
    """One of the test's own."""
    async with Workshop() as found:
        yield found


def without_end() -> None:
    """Hold the interpreter, as protovalidate does."""
    sum(range(1 << 62))


def large() -> None:
    """Take more memory than any process of a workshop may."""
    bytearray(1 << 40)


kept = list[bytes]()


def keeping(size: int) -> int:
    """Leave so many bytes in the process, whose id it is."""
    kept.append(b"a" * size)
    return os.getpid()


def killed() -> None:
    """End as whom the kernel kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def refused() -> None:
    """Raise what callers are told."""
    raise InvalidCall("no such type", [Violation("type", "is none")], reason="NO_SCHEMA")


def faulty() -> None:
    """Raise what nobody expects."""
    raise LookupError("a fault of ours")


async def test_work_is_done_in_another_process_and_the_next_in_the_same(workshop: Workshop) -> None:
    one, other = await workshop.run(os.getpid), await workshop.run(os.getpid)
    assert one == other != os.getpid()
    assert await workshop.run(len, b"a" * (8 << 20)) == 8 << 20


async def test_what_is_raised_there_is_raised_here(workshop: Workshop) -> None:
    pid = await workshop.run(os.getpid)
    with pytest.raises(InvalidCall) as told:
        await workshop.run(refused)
    assert (told.value.reason, told.value.violations) == ("NO_SCHEMA", (Violation("type", "is none"),))
    with pytest.raises(RuntimeError, match=r"LookupError\n(.*\n)*.* in faulty") as failed:
        await workshop.run(faulty)
    assert "a fault of ours" not in str(failed.value)
    assert await workshop.run(os.getpid) == pid


async def test_work_without_end_is_ended_while_other_work_goes_on(workshop: Workshop) -> None:
    endless = asyncio.ensure_future(workshop.run(without_end))
    assert await workshop.run(len, "abc") == 3
    with pytest.raises(SpentError, match="of a processor"):
        await endless
    assert await workshop.run(len, "abc") == 3


async def test_work_that_takes_too_much_memory_is_ended(workshop: Workshop) -> None:
    with pytest.raises(SpentError):
        await workshop.run(large)
    assert await workshop.run(len, "abc") == 3


async def test_a_process_is_ended_once_much_is_left_in_it(workshop: Workshop) -> None:
    little = await workshop.run(keeping, 1)
    much = await workshop.run(keeping, KEPT_BYTES)
    assert little == much
    assert alive([much]) == []
    assert await workshop.run(len, "abc") == 3


async def test_a_process_that_ends_for_no_fault_of_its_work_is_told_as_away(workshop: Workshop) -> None:
    with pytest.raises(Unavailable) as told:
        await workshop.run(killed)
    assert (told.value.reason, bool(told.value.retry_after_s)) == ("WORK_ENDED", True)
    assert await workshop.run(len, "abc") == 3


async def test_work_whose_caller_leaves_is_ended_and_so_is_all_when_the_workshop_closes() -> None:
    async with Workshop() as workshop:
        idle = await workshop.run(os.getpid)
        endless = [asyncio.ensure_future(workshop.run(without_end)) for _ in range(BENCHES)]

        async def at_work() -> list[int]:
            found = children()
            assert len(found) == BENCHES
            return found

        pids = await eventually(at_work)
        assert idle in pids
        for each in endless:
            each.cancel()
        await asyncio.gather(*endless, return_exceptions=True)

        async def gone() -> None:
            assert alive(pids) == []

        await eventually(gone)
        last = await workshop.run(os.getpid)
        assert alive([last]) == [last]
    assert alive([last]) == []


SERVER = """
import asyncio
from model_server.workshop import Workshop
from tests.model_server.test_workshop import without_end

async def main():
    workshop = Workshop()
    print(await workshop.run(__import__("os").getpid), flush=True)
    await workshop.run(without_end)

asyncio.run(main())
"""


async def test_work_ends_with_a_server_that_is_killed() -> None:
    argv = (sys.executable, "-c", SERVER)
    server = await asyncio.create_subprocess_exec(*argv, cwd=REPO, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    assert alive([pid]) == [pid]
    server.kill()
    await server.wait()

    async def gone() -> None:
        assert alive([pid]) == []

    await eventually(gone)


async def test_a_callers_work_without_end_leaves_a_process_to_the_others() -> None:
    async with Workshop() as workshop:
        endless = [asyncio.ensure_future(workshop.visit("eve").run(without_end)) for _ in range(3)]
        other = workshop.visit("bob")
        for _ in range(3):
            assert await other.run(len, "abc") == 3
        for each in endless:
            each.cancel()
        await asyncio.gather(*endless, return_exceptions=True)


def children() -> list[int]:
    """Those that do work for this process, and not for a model server below it."""
    return [pid for pid in processes_below(os.getpid()) if f"model_server.bench\0{os.getpid()}\0" in title(pid)]


def title(pid: int) -> str:
    """How a process was begun; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
