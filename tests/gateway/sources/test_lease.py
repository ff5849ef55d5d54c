"""Who renews a lease stays; who does not is gone when it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from gateway.catalog import Endpoint
from gateway.sources import lease as lease_module
from gateway.sources.hold import HOLD_S, WINDOW_S
from gateway.sources.lease import RETRY_S, TTL_S, Leases
from llmesh import home
from tests.eventually import eventually
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


async def held(leases: Leases) -> set[str]:
    """Those that a new reader sees held."""
    watch: AsyncIterator[frozenset[Endpoint]] = leases.watch()
    async with aclosing(cast("AsyncGenerator[frozenset[Endpoint]]", watch)):
        return {each.address for each in await anext(watch) if each.held}


async def test_the_first_word_is_that_there_are_none(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        assert await named(leases) == set()


async def test_a_lease_that_is_not_renewed_ends_on_time_and_not_before(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path / "leases.json", clock) as leases:
        lease = await leases.register(ADDRESS)
        await clock.pass_(TTL_S - 0.1)
        assert await leases.renew(lease.id) == lease
        await clock.pass_(TTL_S)
        assert await leases.renew(lease.id) is None
        assert await named(leases) == {ADDRESS}
        await clock.pass_(WINDOW_S - 0.1)
        assert await named(leases) == {ADDRESS}
        await clock.pass_(0.2)
        assert await named(leases) == set()


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
        await clock.pass_(TTL_S + WINDOW_S - 6)
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


async def test_a_mass_disappearance_is_held_and_one_that_returns_is_not(tmp_path: Path) -> None:
    clock = FakeClock()
    many = [f"unix:/run/tools/{number}.sock" for number in range(10)]
    async with running(tmp_path / "leases.json", clock) as leases:
        for address in many:
            await leases.register(address)
            await clock.pass_(0.3)
        await clock.pass_(TTL_S + WINDOW_S)
        assert await named(leases) == set(many)
        assert await held(leases) == set(many)
        lease = await leases.register(many[0])
        assert await held(leases) == set(many[1:])
        await clock.pass_(HOLD_S - WINDOW_S - TTL_S)
        assert await leases.renew(lease.id) is None
        await clock.pass_(TTL_S + WINDOW_S)
        assert await named(leases) == set()


async def test_leases_that_are_given_back_are_gone_at_once_however_many(tmp_path: Path) -> None:
    async with running(tmp_path / "leases.json", FakeClock()) as leases:
        for lease in [await leases.register(f"unix:/run/tools/{number}.sock") for number in range(10)]:
            await leases.release(lease.id)
        assert await named(leases) == set()


async def test_no_lease_ends_for_the_time_that_the_gateway_stood_still(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(tmp_path / "leases.json", clock) as leases:
        lease = await leases.register(ADDRESS)
        await clock.pass_(1)
        clock.stand_still(3600)
        assert await leases.renew(lease.id) == lease
        clock.stand_still(3600)
        await clock.pass_(TTL_S - 2)
        assert await leases.renew(lease.id) == lease
        await clock.pass_(TTL_S)
        assert await leases.renew(lease.id) is None


async def test_a_disk_that_hangs_keeps_nobody_from_a_lease_and_the_newest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, path = threading.Event(), tmp_path / "leases.json"

    def slow(handle: int) -> None:
        assert hanging.wait(120), handle

    monkeypatch.setattr(home.os, "fsync", slow)
    monkeypatch.setattr(lease_module, "SAVE_WAIT_S", 0.01)
    async with running(path, FakeClock()) as leases:
        for address in (ADDRESS, OTHER):
            given = await leases.register(address)
            assert await leases.renew(given.id) == given
        assert await named(leases) == {ADDRESS, OTHER}
        assert not path.exists()
        hanging.set()

        async def kept() -> None:
            assert path.exists()
            assert set(json.loads(path.read_text()).values()) == {ADDRESS, OTHER}

        await eventually(kept)


async def test_a_disk_that_cannot_be_written_costs_nobody_a_lease_which_is_kept_once_it_can(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "nowhere" / "leases.json"
    async with running(path, clock) as leases:
        lease = await leases.register(ADDRESS)
        assert await leases.renew(lease.id) == lease
        assert "No such file" in leases.unkept
        path.parent.mkdir()

        async def kept() -> None:
            await clock.pass_(RETRY_S)
            assert await leases.renew(lease.id) == lease
            assert path.exists()
            assert json.loads(path.read_text()) == {lease.id: ADDRESS}
            assert leases.unkept == ""

        await eventually(kept)
