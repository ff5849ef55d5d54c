"""Blocks where the database or the disk fails: what the copy is for, and what it must not do."""

from __future__ import annotations

import asyncio
import errno
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.blocks import store as gateway_store
from gateway.blocks.blocks import POLL_S, Blocks, BlocksNotKeptError
from gateway.blocks.store import BlocksLostError, Store
from gateway.blocks.words import Action, Block, CallerId, Change
from llmesh.home import write_atomically
from tests.eventually import eventually
from tests.gateway.blocks.database import DOCS, TICKETS, Database, commit, running
from tests.gateway.blocks.world import OPS, blocks_in
from tests.gateway.fakes import FakeClock

ANN = CallerId("corp", "ann")


async def test_without_its_database_a_gateway_starts_with_the_blocks_of_the_copy(database: Database) -> None:
    clock = FakeClock()
    placed = await Blocks(database.store, clock=clock).block(TICKETS, "it leaks", by=OPS, until_us=1010_000_000)
    database.away = True

    async with running(Blocks(database.store, clock=clock)) as blocks:
        assert blocks.current == {TICKETS: placed}
        assert "connection refused" in blocks.error
        with pytest.raises(BlocksNotKeptError, match="connection refused"):
            await blocks.block(DOCS, "it leaks", by=OPS)
        with pytest.raises(BlocksNotKeptError, match="connection refused"):
            await blocks.unblock(TICKETS, by=OPS)
        # Its end cannot be kept: it stays.
        await clock.pass_(60)
        await asyncio.to_thread(lambda: None)
        await clock.pass_(1)
        assert blocks.current == {TICKETS: placed}

        database.away = False

        async def back() -> None:
            await clock.pass_(POLL_S)
            assert blocks.error == ""
            assert not blocks.current

        await eventually(back)
        await blocks.block(DOCS, "it leaks", by=OPS)


async def test_without_database_and_copy_no_gateway_starts(database: Database) -> None:
    database.away = True
    with pytest.raises(BlocksLostError, match=r"connection refused.*no copy of what is blocked at"):
        Blocks(database.store, clock=FakeClock())


@pytest.mark.parametrize("content", ["", "{", "[{}]", '[{"id": "a"}]', "\0"])
async def test_a_copy_that_cannot_be_read_is_not_taken_for_an_empty_one(database: Database, content: str) -> None:
    (database.folder / "blocks.json").write_text(content)
    with pytest.raises(BlocksLostError, match="cannot be read"):
        Blocks(database.store, clock=FakeClock())


async def test_a_file_that_is_no_database_is_told_and_the_copy_holds(tmp_path: Path) -> None:
    clock = FakeClock()
    first = blocks_in(tmp_path, clock)
    placed = await first.block(TICKETS, "it leaks", by=OPS)
    for each in tmp_path.glob("mesh.db*"):
        each.write_bytes(b"no database at all, and long enough to be looked at" * 100)

    again = blocks_in(tmp_path, clock)

    assert again.current == {TICKETS: placed}
    assert "not a database" in again.error


async def test_blocks_that_a_lost_database_had_are_put_back(database: Database) -> None:
    clock = FakeClock()
    blocks = Blocks(database.store, clock=clock)
    placed = await blocks.block(TICKETS, "it leaks", by=OPS)
    await blocks.block(DOCS, "it leaks", by=OPS)
    await blocks.unblock(DOCS, by=OPS)
    assert database.engine
    database.engine.dispose()
    database.engine = None
    for each in database.folder.glob("mesh.db*"):
        each.unlink()

    again = Blocks(database.store, clock=clock)

    assert again.current == {TICKETS: placed}
    assert [change.block for change in await again.changes(before=None, limit=9)] == [placed]


async def test_an_old_copy_brings_no_ended_block_back(database: Database) -> None:
    clock = FakeClock()
    blocks = Blocks(database.store, clock=clock)
    await blocks.block(TICKETS, "it leaks", by=OPS)
    old = (database.folder / "blocks.json").read_bytes()
    await blocks.unblock(TICKETS, by=OPS)
    (database.folder / "blocks.json").write_bytes(old)

    assert not Blocks(database.store, clock=clock).current
    assert json.loads((database.folder / "blocks.json").read_bytes()) == []


async def test_what_cannot_be_kept_is_not_blocked_now_nor_after_a_restart(database: Database) -> None:
    clock = FakeClock()
    blocks = Blocks(database.store, clock=clock)
    assert database.engine
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE block_history"))

    with pytest.raises(BlocksNotKeptError):
        await blocks.block(TICKETS, "it leaks", by=OPS)

    assert not blocks.current
    assert json.loads((database.folder / "blocks.json").read_bytes()) == []


async def test_a_copy_that_cannot_be_written_hinders_no_block(database: Database) -> None:
    (database.folder / "blocks.json").mkdir()
    store = Store(database.open, database.folder / "nowhere" / "blocks.json")
    blocks = Blocks(store, clock=FakeClock())

    placed = await blocks.block(TICKETS, "it leaks", by=OPS)

    assert Blocks(store, clock=FakeClock()).current == {TICKETS: placed}


async def test_a_block_that_was_not_kept_leaves_the_copy_once_the_disk_takes_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, disk = FakeClock(), Disk()
    monkeypatch.setattr(gateway_store, "write_atomically", disk.write)
    async with running(Blocks(database.store, clock=clock)) as blocks:
        database.away, disk.takes = True, 1
        with pytest.raises(BlocksNotKeptError):
            await blocks.block(TICKETS, "it leaks", by=OPS)
        assert "it leaks" in (database.folder / "blocks.json").read_text()
        disk.takes = 1000

        async def mended() -> None:
            await clock.pass_(POLL_S)
            assert json.loads((database.folder / "blocks.json").read_bytes()) == []

        await eventually(mended)
        database.away = False
        await blocks.block(DOCS, "it leaks", by=OPS)
    assert Blocks(database.store, clock=clock).current.keys() == {DOCS}


@dataclass(slots=True)
class Disk:
    """A disk with room for so many more files."""

    takes: int = 1000

    def write(self, path: Path, data: bytes) -> None:
        """Write it, if there is room."""
        if not self.takes:
            raise OSError(errno.ENOSPC, "no room", str(path))
        self.takes -= 1
        write_atomically(path, data)


@pytest.mark.parametrize("content", ["{", "[]"])
async def test_a_copy_that_is_damaged_while_the_gateway_runs_is_written_anew(database: Database, content: str) -> None:
    clock = FakeClock()
    async with running(Blocks(database.store, clock=clock)) as ours:
        first = await ours.block(TICKETS, "it leaks", by=OPS)
        (database.folder / "blocks.json").write_text(content)
        commit(database, 7, Change(Action.BLOCKED, second := Block("d", DOCS, "it leaks", ANN, 1), 1, ANN))

        async def seen() -> None:
            await clock.pass_(POLL_S)
            assert set(ours.current.values()) == {first, second}

        await eventually(seen)
    assert set(Store(database.open, database.folder / "blocks.json").copied()) == {first, second}
