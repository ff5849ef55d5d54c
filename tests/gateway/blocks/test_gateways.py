"""Blocks that several gateways keep in one database."""

from __future__ import annotations

from dataclasses import replace

from gateway.blocks.blocks import POLL_S, Blocks
from gateway.blocks.words import Action, Block, CallerId, Change
from tests.eventually import eventually
from tests.gateway.blocks.database import DOCS, TICKETS, Database, commit, running
from tests.gateway.blocks.world import OPS, caller
from tests.gateway.fakes import FakeClock

ANN = CallerId("corp", "ann")


async def test_what_another_gateway_keeps_is_taken_up(database: Database) -> None:
    clock = FakeClock()
    async with running(Blocks(database.store, clock=clock)) as ours:
        theirs = Blocks(database.store, clock=clock)
        placed = await theirs.block(TICKETS, "it leaks", by=OPS)

        async def seen(expected: dict[object, object]) -> None:
            await clock.pass_(POLL_S)
            assert ours.current == expected

        await eventually(lambda: seen({TICKETS: placed}))
        await theirs.unblock(TICKETS, by=OPS)
        await eventually(lambda: seen({}))


async def test_a_change_that_is_committed_after_later_ones_is_taken_up(database: Database) -> None:
    clock = FakeClock()
    async with running(Blocks(database.store, clock=clock)) as ours:
        of_tool, of_docs = Block("t", TICKETS, "it leaks", ANN, 1), Block("d", DOCS, "it leaks", ANN, 1)

        async def seen(*expected: Block) -> None:
            await clock.pass_(POLL_S)
            assert set(ours.current.values()) == set(expected)

        # As PostgreSQL has it: of two gateways, the one whose change has the lower number commits last.
        commit(database, 12, Change(Action.BLOCKED, of_docs, 1, ANN))
        await eventually(lambda: seen(of_docs))
        commit(database, 11, Change(Action.BLOCKED, of_tool, 1, ANN))
        await eventually(lambda: seen(of_docs, of_tool))
        commit(database, 14, Change(Action.UNBLOCKED, of_tool, 1, ANN))
        await eventually(lambda: seen(of_docs))
        # Whoever unblocked the tool had not seen this block of it: it holds.
        late = replace(of_tool, id="late")
        commit(database, 13, Change(Action.BLOCKED, late, 1, ANN))
        await eventually(lambda: seen(of_docs, late))
        # Of two blocks of one thing the number tells which holds, whenever it was committed.
        newer = replace(of_tool, id="newer")
        commit(database, 16, Change(Action.BLOCKED, newer, 1, ANN))
        await eventually(lambda: seen(of_docs, newer))
        commit(database, 15, Change(Action.BLOCKED, replace(of_tool, id="older"), 1, ANN))
        placed = await ours.block(caller("sam"), "a bot", by=OPS)
        await eventually(lambda: seen(of_docs, newer, placed))


async def test_a_gateway_that_ends_a_block_ends_none_that_another_has_put_in_its_place(database: Database) -> None:
    clock = FakeClock()
    ours = Blocks(database.store, clock=clock)
    first = await ours.block(TICKETS, "it leaks", by=OPS, until_us=1010_000_000)
    renewed = await Blocks(database.store, clock=clock).block(TICKETS, "it leaks", by=ANN, until_us=9000_000_000)

    # It has not seen it yet.
    commit(database, 99, Change(Action.EXPIRED, first, 1010_000_000, None))

    assert Blocks(database.store, clock=clock).current == {TICKETS: renewed}
