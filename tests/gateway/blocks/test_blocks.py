"""What is blocked: kept before it is in force, told to who watches, ended on time."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import OperationalError

from gateway.blocks import store as gateway_store
from gateway.blocks.blocks import POLL_S, Blocks, BlocksNotKeptError
from gateway.blocks.store import CHANGES, TABLES, BlocksLostError, Store, row_of
from gateway.blocks.words import Action, Block, CallerId, Change, Kind, Target
from gateway.database import open_database
from llmesh.home import write_atomically
from tests.eventually import eventually
from tests.gateway.blocks.world import OPS, blocks_in, caller, domain, method, tool
from tests.gateway.fakes import FakeClock

TICKETS, DOCS = tool("acme.support.v1.Tickets"), tool("acme.engineering.v1.Docs")
ANN = CallerId("corp", "ann")


class SlowStore(Store):
    """Waits at one step, if told to, until the test lets it go on."""

    wait_at = ""

    def __init__(self, opened: Callable[[], Engine], copy: Path) -> None:
        """As the store."""
        super().__init__(opened, copy)
        self.waits, self.go_on = threading.Event(), threading.Event()

    def add(self, change: Change) -> None:
        """As the store, in the test's time."""
        self._wait("add")
        super().add(change)

    def copy(self, blocks: Iterable[Block]) -> None:
        """As the store, in the test's time."""
        self._wait("copy")
        super().copy(blocks)

    def _wait(self, step: str) -> None:
        if self.wait_at == step:
            self.waits.set()
            assert self.go_on.wait(60)

    async def is_waiting(self) -> None:
        """Return once it waits."""
        assert await asyncio.to_thread(self.waits.wait, 60)


@dataclass(slots=True)
class Database:
    """A database that a test may take away."""

    folder: Path
    away: bool = False
    engine: Engine | None = None

    def open(self) -> Engine:
        """It, if it is there."""
        if self.away:
            raise OperationalError("select", {}, Exception("connection refused"))
        if self.engine is None:
            self.engine = open_database(f"sqlite:///{self.folder}/mesh.db", TABLES)
        return self.engine

    @property
    def store(self) -> Store:
        """What keeps blocks in it."""
        return Store(self.open, self.folder / "blocks.json")

    @property
    def slow_store(self) -> SlowStore:
        """The same, which waits where the test says so."""
        return SlowStore(self.open, self.folder / "blocks.json")


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    made = Database(tmp_path)
    yield made
    if made.engine:
        made.engine.dispose()


@asynccontextmanager
async def running(blocks: Blocks) -> AsyncGenerator[Blocks]:
    """The blocks, while they follow clock and database."""
    task = asyncio.create_task(blocks.run())
    try:
        yield blocks
    finally:
        task.cancel()


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


def commit(database: Database, number: int, change: Change) -> None:
    """Another gateway keeps a change, of a number that it took a while ago."""
    with database.open().begin() as connection:
        connection.execute(insert(CHANGES), {**row_of(change), "number": number})


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
