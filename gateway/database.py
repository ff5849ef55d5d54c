"""What must last is in SQL: SQLite in the mesh directory unless the mesh file names another database.

Each part that keeps something declares its own tables, which are made when its
database is opened. In the mesh directory each has a file of its own, so that
none can use up another's. Calls block on the disk or the network: from the
event loop, by asyncio.to_thread.
"""

from __future__ import annotations

from typing import Any as Untyped

from sqlalchemy import Engine, MetaData, create_engine, event, make_url

__all__ = ["open_database"]

# How long a writer waits for another.
BUSY_TIMEOUT_MS = 5000
# Parameters are told apart by their order, whatever the driver.
_BY_ORDER = {"sqlite": "qmark", "postgresql": "format"}


def open_database(url: str, tables: MetaData) -> Engine:
    """The database at a SQLAlchemy URL, with all these tables. Raises sqlalchemy.exc.SQLAlchemyError.

    SQLite is told to write ahead, so that readers never wait for the writer,
    and to have what is committed on the disk.
    """
    engine = create_engine(url, paramstyle=_BY_ORDER.get(make_url(url).get_backend_name()))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _settings)
    tables.create_all(engine)
    return engine


def _settings(connection: Untyped, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
