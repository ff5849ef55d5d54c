"""A database of blocks that a test may take away, and a store that waits where it says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, insert
from sqlalchemy.exc import OperationalError

from gateway.blocks.blocks import Blocks
from gateway.blocks.store import CHANGES, TABLES, Store, row_of
from gateway.blocks.words import Block, Change
from gateway.database import open_database
from tests.gateway.blocks.world import tool

TICKETS, DOCS = tool("acme.support.v1.Tickets"), tool("acme.engineering.v1.Docs")


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


@asynccontextmanager
async def running(blocks: Blocks) -> AsyncGenerator[Blocks]:
    """The blocks, while they follow clock and database."""
    task = asyncio.create_task(blocks.run())
    try:
        yield blocks
    finally:
        task.cancel()


def commit(database: Database, number: int, change: Change) -> None:
    """Another gateway keeps a change, of a number that it took a while ago."""
    with database.open().begin() as connection:
        connection.execute(insert(CHANGES), {**row_of(change), "number": number})
