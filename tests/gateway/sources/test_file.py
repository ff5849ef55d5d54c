"""The mesh file's endpoints, as the file changes under a running gateway."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.catalog import Endpoint, Grant
from gateway.sources.file import POLL_S, FileSource
from gateway.sources.hold import HOLD_S
from tests.eventually import eventually
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
    async with asyncio.timeout(60):
        return {each.address for each in await seen.get()}


async def polled(clock: FakeClock, source: FileSource, *, problem: bool) -> None:
    """Let polls pass until the source has, or no longer has, a problem."""

    async def is_so() -> None:
        await clock.pass_(POLL_S)
        assert (source.problem is not None) is problem

    await eventually(is_so)


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


async def test_a_file_that_no_longer_names_most_endpoints_holds_them_for_a_while(tmp_path: Path) -> None:
    path, clock = tmp_path / "mesh.yaml", FakeClock()
    many = [f"127.0.0.1:{port}" for port in range(50051, 50061)]
    path.write_text("endpoints:\n" + "".join(f"- {{address: '{each}'}}\n" for each in many))
    seen, task = await following(FileSource(path, clock=clock).watch())

    async def told() -> frozenset[Endpoint]:
        await clock.pass_(POLL_S)
        assert not seen.empty()
        return seen.get_nowait()

    try:
        assert {each.address for each in await eventually(told)} == set(many)
        path.write_text(f"endpoints: [{{address: '{many[0]}'}}]")
        half_written = await eventually(told)
        assert {each.address for each in half_written} == set(many)
        assert {each.address for each in half_written if each.held} == set(many[1:])
        await clock.pass_(HOLD_S)
        assert {each.address for each in await eventually(told)} == set(many[:1])
    finally:
        task.cancel()


async def test_an_address_that_went_is_forgotten(tmp_path: Path) -> None:
    path, draft, clock = tmp_path / "mesh.yaml", tmp_path / "mesh.yaml.new", FakeClock()
    path.write_text(GOOD)
    seen, task = await following(FileSource(path, clock=clock).watch())

    async def told() -> set[str]:
        await clock.pass_(POLL_S)
        assert not seen.empty()
        return {each.address for each in seen.get_nowait()}

    try:
        await eventually(told)
        for port in range(40001, 40021):
            draft.write_text(GOOD.replace("50051", str(port)))
            draft.replace(path)
            assert await eventually(told) == {f"127.0.0.1:{port}"}
        gc.collect()
        known = {each.address for each in gc.get_objects() if isinstance(each, Endpoint) and ":400" in each.address}
        assert known == {"127.0.0.1:40020"}
    finally:
        task.cancel()
