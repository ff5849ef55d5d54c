"""The mesh file's endpoints, as the file changes under a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.catalog import Endpoint, Grant
from gateway.sources.file import POLL_S, FileSource
from tests.gateway.fakes import FakeClock

GOOD = "endpoints: [{address: 'localhost:50051'}]"


async def following(
    watch: AsyncIterator[frozenset[Endpoint]],
) -> tuple[asyncio.Queue[frozenset[Endpoint]], asyncio.Task[None]]:
    seen: asyncio.Queue[frozenset[Endpoint]] = asyncio.Queue()

    async def follow() -> None:
        async for endpoints in watch:
            seen.put_nowait(endpoints)

    return seen, asyncio.create_task(follow())


async def addresses(seen: asyncio.Queue[frozenset[Endpoint]]) -> set[str]:
    async with asyncio.timeout(5):
        return {each.address for each in await seen.get()}


async def polled(clock: FakeClock, source: FileSource, *, problem: bool) -> None:
    """Let polls pass until the source has, or no longer has, a problem."""
    async with asyncio.timeout(5):
        while (source.problem is not None) is not problem:
            await clock.pass_(POLL_S)
            await asyncio.sleep(0.001)


async def test_the_file_names_endpoints_and_what_it_states_of_their_services(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(
        "endpoints:\n- address: unix:/run/a.sock\n  services:\n"
        "  - {service: a.B, domain: support, owner_team: team, effects: {Get: read, Put: write}}\n"
    )
    endpoints = await anext(FileSource(path, clock=FakeClock()).watch())
    grant = Grant("a.B", "support", "team", (("Get", "read"), ("Put", "write")))
    assert endpoints == {Endpoint("unix:/run/a.sock", "file", (grant,))}


async def test_a_broken_edit_keeps_the_last_good_endpoints_and_says_what_is_wrong(tmp_path: Path) -> None:
    path, clock = tmp_path / "mesh.yaml", FakeClock()
    path.write_text(GOOD)
    source = FileSource(path, clock=clock)
    seen, task = await following(source.watch())
    try:
        assert await addresses(seen) == {"127.0.0.1:50051"}
        path.write_text(GOOD + "\nendpionts: []")
        await polled(clock, source, problem=True)
        assert source.problem is not None
        assert "endpionts" in source.problem
        assert seen.empty()
        path.write_text(GOOD.replace("50051", "50052"))
        await polled(clock, source, problem=False)
        assert await addresses(seen) == {"127.0.0.1:50052"}
    finally:
        task.cancel()


async def test_a_file_that_is_wrong_from_the_start_says_nothing_until_it_is_right(tmp_path: Path) -> None:
    path, clock = tmp_path / "mesh.yaml", FakeClock()
    source = FileSource(path, clock=clock)
    seen, task = await following(source.watch())
    try:
        await polled(clock, source, problem=True)
        assert seen.empty()
        path.write_text(GOOD)
        await polled(clock, source, problem=False)
        assert await addresses(seen) == {"127.0.0.1:50051"}
    finally:
        task.cancel()
