"""Who renews a lease stays; who does not is gone when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from gateway.catalog import Endpoint
from gateway.sources.lease import TTL_S, Leases
from tests.gateway.fakes import FakeClock

ADDRESS = "unix:/run/tools/a.sock"
OTHER = "unix:/run/tools/b.sock"


@asynccontextmanager
async def running(path: Path, clock: FakeClock) -> AsyncGenerator[Leases]:
    leases = Leases(path, clock=clock)
    task = asyncio.create_task(leases.run())
    await clock.pass_(0)
    try:
        yield leases
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def named(leases: Leases) -> set[str]:
    """The addresses that a new reader sees first."""
    watch: AsyncIterator[frozenset[Endpoint]] = leases.watch()
    async with aclosing(cast("AsyncGenerator[frozenset[Endpoint]]", watch)):
        return {each.address for each in await anext(watch)}


async def test_the_first_word_is_that_there_are_none(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        assert await named(leases) == set()


async def test_a_lease_that_is_not_renewed_ends_on_time_and_not_before(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path / "leases.json", clock) as leases:
        lease = await leases.register(ADDRESS)
        await clock.pass_(TTL_S - 0.1)
        assert await named(leases) == {ADDRESS}
        await clock.pass_(0.1)
        assert await named(leases) == set()
        assert await leases.renew(lease.id) is None


async def test_a_lease_that_is_renewed_goes_on(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path / "leases.json", clock) as leases:
        lease = await leases.register(ADDRESS)
        for _ in range(10):
            await clock.pass_(TTL_S / 3)
            assert await leases.renew(lease.id) == lease
        assert await named(leases) == {ADDRESS}


async def test_each_lease_ends_by_itself(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path / "leases.json", clock) as leases:
        await leases.register(ADDRESS)
        await clock.pass_(6)
        await leases.register(OTHER)
        await clock.pass_(6)
        assert await named(leases) == {OTHER}
        await clock.pass_(6)
        assert await named(leases) == set()


async def test_a_released_lease_is_gone_at_once_and_releasing_it_again_is_no_error(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        lease = await leases.register(ADDRESS)
        await leases.release(lease.id)
        await leases.release(lease.id)
        assert await named(leases) == set()


async def test_an_address_that_registers_again_has_one_lease_the_new_one(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        old, new = await leases.register(ADDRESS), await leases.register(ADDRESS)
        assert await leases.renew(old.id) is None
        await leases.release(old.id)
        assert await named(leases) == {ADDRESS}
        assert await leases.renew(new.id) == new


async def test_a_reader_hears_of_each_change(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        watch = leases.watch()
        assert await anext(watch) == frozenset()
        lease = await leases.register(ADDRESS)
        assert await anext(watch) == {Endpoint(ADDRESS, "lease")}
        await leases.release(lease.id)
        assert await anext(watch) == frozenset()


async def test_leases_outlive_the_gateway_each_as_good_as_new(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "leases.json"
    async with running(path, clock) as leases:
        lease = await leases.register(ADDRESS)
        gone = await leases.register(OTHER)
        await leases.release(gone.id)
        await clock.pass_(TTL_S - 1)
    assert path.stat().st_mode & 0o777 == 0o600
    async with running(path, clock) as again:
        await clock.pass_(TTL_S - 1)
        assert await named(again) == {ADDRESS}
        assert await again.renew(lease.id) == lease


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "\x00"])
async def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "leases.json"
    path.write_text(content)
    async with running(path, FakeClock()) as leases:
        assert await named(leases) == set()
        await leases.register(ADDRESS)
    assert list(json.loads(path.read_text()).values()) == [ADDRESS]


async def test_a_disk_that_cannot_be_written_costs_nobody_a_lease(tmp_path: Path) -> None:
    async with running(tmp_path / "nowhere" / "leases.json", FakeClock()) as leases:
        lease = await leases.register(ADDRESS)
        assert await leases.renew(lease.id) == lease
