"""What must last is in SQL: SQLite in the mesh directory unless the mesh file names another database.

Each part that keeps something declares its own tables on `METADATA`; they are
made when the database is opened. Calls block on the disk or the network: from
the event loop, by asyncio.to_thread.
"""

from __future__ import annotations

from typing import Any as Untyped

from sqlalchemy import Engine, MetaData, create_engine, event

__all__ = ["METADATA", "open_database"]

METADATA = MetaData()
# How long a writer waits for another.
BUSY_TIMEOUT_MS = 5000


def open_database(url: str) -> Engine:
    """The database at a SQLAlchemy URL, with every table of METADATA. Raises sqlalchemy.exc.SQLAlchemyError.

    SQLite is told to write ahead, so that readers never wait for the writer,
    and to have what is committed on the disk.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _settings)
    METADATA.create_all(engine)
    return engine


def _settings(connection: Untyped, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
