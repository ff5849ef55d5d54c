"""The database: what is committed lasts, and a reader never waits for a writer."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text

from gateway.database import open_database


def test_committed_rows_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mesh.db"
    things = Table("things", MetaData(), Column("id", Integer, primary_key=True))
    first = open_database(url, MetaData())
    things.create(first)
    with first.begin() as connection:
        connection.execute(insert(things).values(id=7))
    first.dispose()

    second = open_database(url, MetaData())
    with second.connect() as connection:
        assert connection.scalars(select(things.c.id)).all() == [7]
    second.dispose()


def test_reader_sees_the_last_commit_while_a_writer_is_at_work(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/mesh.db", MetaData())
    things = Table("things", MetaData(), Column("id", Integer, primary_key=True))
    things.create(engine)
    with engine.begin() as writer, engine.connect() as reader:
        writer.execute(insert(things).values(id=1))
        assert reader.scalars(select(things.c.id)).all() == []
        assert reader.execute(text("PRAGMA synchronous")).scalar() == 2
    engine.dispose()
