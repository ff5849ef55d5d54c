"""What is blocked: kept before it is in force, told to who watches, ended on time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing

import pytest

from gateway.blocks.blocks import POLL_S, Blocks
from gateway.blocks.words import Action, CallerId, Kind, Target
from tests.eventually import eventually
from tests.gateway.blocks.database import DOCS, TICKETS, Database, SlowStore, running
from tests.gateway.blocks.world import OPS, caller, domain, method
from tests.gateway.fakes import FakeClock

ANN = CallerId("corp", "ann")


@pytest.mark.parametrize(
    "target",
    [TICKETS, method("acme.support.v1.Tickets/Get"), domain("support"), caller("sam"), caller("sam", "other")],
    ids=str,
)
async def test_a_block_is_there_when_everything_starts_anew(database: Database, target: object) -> None:
    assert isinstance(target, type(TICKETS))
    clock = FakeClock()
    placed = await Blocks(database.store, clock=clock).block(target, "it leaks", by=OPS, until_us=2000_500_000)

    again = Blocks(database.store, clock=clock)

    assert again.current == {target: placed}
    assert (placed.reason, placed.by, placed.at_us, placed.until_us) == ("it leaks", OPS, 1000_000_000, 2000_500_000)


async def test_blocking_in_the_same_words_changes_nothing(database: Database) -> None:
    blocks = Blocks(database.store, clock=FakeClock())
    first = await blocks.block(TICKETS, "it leaks", by=OPS)

    same = await blocks.block(TICKETS, "it leaks", by=ANN)
    other = await blocks.block(TICKETS, "it leaks more", by=ANN)

    assert same is first
    assert other.id != first.id
    assert blocks.current == {TICKETS: other}
    assert [change.block.id for change in await blocks.changes(before=None, limit=9)] == [other.id, first.id]


async def test_unblocking_what_is_not_blocked_changes_nothing(database: Database) -> None:
    blocks = Blocks(database.store, clock=FakeClock())
    assert await blocks.unblock(TICKETS, by=OPS) is None
    assert await blocks.changes(before=None, limit=9) == []


async def test_who_blocked_and_unblocked_what_and_why_stays_known(database: Database) -> None:
    clock = FakeClock()
    blocks = Blocks(database.store, clock=clock)
    await blocks.block(TICKETS, "it leaks", by=OPS)
    await clock.pass_(60)
    await blocks.unblock(TICKETS, by=ANN, reason="mended")

    unblocked, blocked = await Blocks(database.store, clock=clock).changes(before=None, limit=9)

    assert (blocked.action, blocked.by, blocked.at_us) == (Action.BLOCKED, OPS, 1000_000_000)
    assert blocked.block.reason == "it leaks"
    assert (unblocked.action, unblocked.by, unblocked.at_us) == (Action.UNBLOCKED, ANN, 1060_000_000)
    assert (unblocked.reason, unblocked.block.by) == ("mended", OPS)
    assert await blocks.changes(before=unblocked.number, limit=1) == [blocked]


async def test_a_block_ends_when_its_time_has_come_and_not_before(database: Database) -> None:
    clock = FakeClock()
    async with running(Blocks(database.store, clock=clock)) as blocks:
        placed = await blocks.block(TICKETS, "it leaks", by=OPS, until_us=1010_000_000)
        await blocks.block(DOCS, "for good", by=OPS)
        await clock.pass_(10 - POLL_S)
        await asyncio.sleep(0)
        assert blocks.current.keys() == {TICKETS, DOCS}

        async def ended() -> None:
            await clock.pass_(POLL_S)
            assert blocks.current.keys() == {DOCS}

        await eventually(ended)
        newest, *_ = await blocks.changes(before=None, limit=1)
    assert (newest.action, newest.by, newest.block) == (Action.EXPIRED, None, placed)


async def test_a_block_that_is_renewed_as_its_time_comes_holds(database: Database) -> None:
    clock, store = FakeClock(), database.slow_store
    async with running(Blocks(store, clock=clock)) as blocks:
        await blocks.block(DOCS, "it leaks", by=OPS, until_us=1010_000_000)
        await blocks.block(TICKETS, "it leaks", by=OPS, until_us=1010_000_000)
        store.wait_at = "add"
        await clock.pass_(60)
        await store.is_waiting()
        # The first of both is being ended, and the second's turn is to come.
        renewing = asyncio.create_task(blocks.block(TICKETS, "it leaks", by=ANN, until_us=9000_000_000))
        await asyncio.sleep(0)
        store.wait_at = ""
        store.go_on.set()
        renewed = await renewing

        async def ended() -> None:
            await clock.pass_(POLL_S)
            assert DOCS not in blocks.current

        await eventually(ended)
        await blocks.block(caller("sam"), "a bot", by=OPS)
        assert blocks.current[TICKETS] == renewed


@pytest.mark.parametrize("step", ["copy", "add"])
async def test_who_is_gone_while_their_block_is_kept_has_blocked_all_the_same(database: Database, step: str) -> None:
    store = database.slow_store
    blocks = Blocks(store, clock=FakeClock())
    store.wait_at = step
    await cancelled_at(store, blocks.block(TICKETS, "it leaks", by=OPS))
    await all_agree(blocks, database, {TICKETS})


@pytest.mark.parametrize("step", ["copy", "add"])
async def test_who_is_gone_while_their_block_is_ended_has_ended_it_all_the_same(database: Database, step: str) -> None:
    store = database.slow_store
    blocks = Blocks(store, clock=FakeClock())
    await blocks.block(TICKETS, "it leaks", by=OPS)
    store.wait_at = step
    await cancelled_at(store, blocks.unblock(TICKETS, by=OPS))
    await all_agree(blocks, database, set())


async def cancelled_at(store: SlowStore, change: Coroutine[object, object, object]) -> None:
    """Ask for a change, and be gone while it is being kept."""
    asking = asyncio.create_task(change)
    await store.is_waiting()
    asking.cancel()
    await asyncio.sleep(0)
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def all_agree(blocks: Blocks, database: Database, targets: set[Target]) -> None:
    """Raise AssertionError unless memory, copy, history and a gateway that starts have these blocks."""
    assert blocks.current.keys() == targets
    assert {Target(**each["target"]) for each in json.loads((database.folder / "blocks.json").read_bytes())} == targets
    newest, *_ = await blocks.changes(before=None, limit=1)
    assert (newest.action is Action.BLOCKED) == bool(targets)
    assert Blocks(database.store, clock=FakeClock()).current.keys() == targets


async def test_a_block_whose_time_came_while_the_gateway_was_away_ends_once_it_is_back(database: Database) -> None:
    clock = FakeClock()
    await Blocks(database.store, clock=clock).block(TICKETS, "it leaks", by=OPS, until_us=1010_000_000)
    clock.stand_still(3600)

    async with running(Blocks(database.store, clock=clock)) as blocks:
        assert blocks.current.keys() == {TICKETS}

        async def ended() -> None:
            await clock.pass_(POLL_S)
            assert not blocks.current

        await eventually(ended)


async def test_who_watches_hears_of_each_change(database: Database) -> None:
    blocks = Blocks(database.store, clock=FakeClock())
    async with aclosing(blocks.watch()) as watch:
        assert await anext(watch) == {}
        placed = await blocks.block(TICKETS, "it leaks", by=OPS)
        assert await anext(watch) == {TICKETS: placed}
        await blocks.unblock(TICKETS, by=OPS)
        assert await anext(watch) == {}


async def test_many_at_once_are_all_kept(database: Database) -> None:
    clock = FakeClock()
    blocks = Blocks(database.store, clock=clock)
    targets = [caller(f"s{number}") for number in range(40)]
    await asyncio.gather(*(blocks.block(target, "a bot", by=OPS) for target in targets))
    await asyncio.gather(*(blocks.unblock(target, by=OPS) for target in targets[::2]))

    assert blocks.current.keys() == Blocks(database.store, clock=clock).current.keys() == set(targets[1::2])
    assert all(target.kind is Kind.CALLER for target in blocks.current)
