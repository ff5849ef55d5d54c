"""Decision records in the database, beside how far the call log has been read.

INVARIANT: records and the position behind them are committed together, so a
gateway that is killed at any moment loses none and keeps none twice. One
process writes at a time, whoever it is: each begins with the row of TURN.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any as Untyped
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gateway.records.judgement import Judgement
from gateway.records.logged import CASES, Case, Logged, Outcome
from governance.words import Caller

__all__ = ["TABLES", "Filter", "Made", "Record", "Records", "Turn"]

TABLES = MetaData()
# SQLite counts rows by itself only in a column of this very type.
_ID = BigInteger().with_variant(Integer, "sqlite")
# A record's columns in the order of `_row`. The ids of calls are in no order,
# and an index of nothing else would have a page written for each record. So
# what comes at the same time is side by side in each index: by its time, or by
# its run of ids.
RECORDS = Table(
    "records",
    TABLES,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("run", Integer, nullable=False),
    # NULL for what was refused before it had one: of these there are many.
    Column("call_id", String(64)),
    Column("time_us", BigInteger, nullable=False),
    Column("parent", String(64), nullable=False),
    Column("trace_id", String(64), nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("counted", BigInteger, nullable=False),
    Column("start", Integer, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("roles", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("clearances", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("code", Integer, nullable=False),
    Column("details", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("shadow", Text, nullable=False),
    UniqueConstraint("time_us", "call_id", "start"),
    Index("records_call", "run", "call_id"),
)
_HAS_PARENT = RECORDS.c.parent != ""
Index("records_parent", RECORDS.c.parent, sqlite_where=_HAS_PARENT, postgresql_where=_HAS_PARENT)
# Records of a run, and runs that are searched at once.
RUN = 4096
_RUNS_AT_ONCE = 500
POSITIONS = Table(
    "records_positions",
    TABLES,
    # Of the file's first line: rotation renames files, and the numbers of deleted ones are given anew.
    Column("file", String(64), primary_key=True),
    Column("read_bytes", BigInteger, nullable=False),
)
TURN = Table(
    "records_turn",
    TABLES,
    Column("id", Integer, primary_key=True),
    # Of the next record.
    Column("next_id", BigInteger, nullable=False),
)
BUNDLES = Table(
    "records_bundles",
    TABLES,
    Column("id", _ID, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("texts", Text, nullable=False),
)
DELETED_AT_ONCE = 5000
TREE_MAX = 1000


class Made(NamedTuple):
    """A record that is to be kept. counted: calls that it counts, telling of the first; 0 in the record of one call."""

    logged: Logged
    judgement: Judgement
    counted: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is kept. id: grows in the order in which records were made. counted: as of `Made`."""

    id: int
    logged: Logged
    judgement: Judgement
    counted: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records; what is empty stands for all.

    own: only of calls by this caller, whatever else is asked. tool: a service
    or service/method. since_us: Unix microseconds.
    """

    own: Caller | None = None
    caller: str = ""
    tool: str = ""
    outcomes: frozenset[Outcome] = frozenset()
    since_us: int = 0

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """As SQL has them."""
        columns = RECORDS.c
        if self.own:
            yield columns.subject == self.own.subject
            yield columns.issuer == self.own.issuer
        if self.caller:
            yield or_(columns.subject == self.caller, columns.actor == self.caller)
        if self.tool:
            service, _, method = self.tool.partition("/")
            yield columns.service == service
            if method:
                yield columns.method == method
        if self.outcomes:
            yield columns.outcome.in_(sorted(self.outcomes))
        if self.since_us:
            yield columns.time_us >= self.since_us


class Turn:
    """What one transaction adds. positions: bytes read by file, as they are before it. next_id: of the next record."""

    def __init__(self, connection: Connection) -> None:
        """Wait until no other process has its turn."""
        self._connection = connection
        begin = update(TURN).values(next_id=TURN.c.next_id).returning(TURN.c.next_id)
        if (next_id := connection.scalar(begin)) is None:
            connection.execute(_unless_there(connection.dialect, TURN).values(id=1, next_id=1))
            next_id = connection.execute(begin).scalar_one()
        self.next_id: int = next_id
        rows = connection.execute(select(POSITIONS.c.file, POSITIONS.c.read_bytes))
        self.positions: Mapping[str, int] = {row.file: row.read_bytes for row in rows}

    def add(self, made: Sequence[Made]) -> None:
        """Keep these, with the next ids; of a call that is there already, nothing."""
        if made:
            rows = [_row(number, each) for number, each in enumerate(made, self.next_id)]
            # By its text: SQLAlchemy would take longer over the parameters than SQLite over the rows.
            self._connection.exec_driver_sql(_inserting(self._connection.dialect), rows)
            self.next_id += len(rows)
            self._connection.execute(update(TURN).values(next_id=self.next_id))

    def count(self, number: int, more: int) -> bool:
        """Count more calls in the record of an id; whether there is one."""
        counted = update(RECORDS).where(RECORDS.c.id == number).values(counted=RECORDS.c.counted + more)
        return bool(self._connection.execute(counted).rowcount)

    def move(self, file: str, read_bytes: int) -> None:
        """The file is read so far."""
        if not self._connection.execute(
            update(POSITIONS).where(POSITIONS.c.file == file).values(read_bytes=read_bytes)
        ).rowcount:
            self._connection.execute(insert(POSITIONS).values(file=file, read_bytes=read_bytes))

    def forget(self, files: Iterable[str]) -> None:
        """These files are gone."""
        for file in files:
            self._connection.execute(delete(POSITIONS).where(POSITIONS.c.file == file))


class Records:
    """The records of one mesh. Calls block on the disk; each raises sqlalchemy.exc.SQLAlchemyError."""

    def __init__(self, engine: Engine) -> None:
        """In this database, whose tables are there by the first call."""
        self._engine = engine

    @contextmanager
    def turn(self) -> Generator[Turn]:
        """One transaction: all that is added in the block is kept at its end, or nothing is."""
        with self._engine.begin() as connection:
            yield Turn(connection)

    def in_force(self, digest: str, since_us: int, texts: Mapping[str, str]) -> None:
        """The bundle of these texts is in force from then on, unless it is already."""
        with self._engine.begin() as connection:
            newest = select(BUNDLES.c.digest).order_by(BUNDLES.c.id.desc()).limit(1)
            if connection.scalars(newest).first() != digest:
                connection.execute(
                    insert(BUNDLES).values(
                        digest=digest, since_us=since_us, texts=json.dumps(dict(texts), sort_keys=True)
                    )
                )

    def bundles(self, count: int) -> list[tuple[int, Mapping[str, str]]]:
        """The newest so many: since when each is in force, and its texts; oldest first."""
        asked = select(BUNDLES.c.since_us, BUNDLES.c.texts).order_by(BUNDLES.c.id.desc()).limit(count)
        with self._engine.connect() as connection:
            return [(row.since_us, json.loads(row.texts)) for row in reversed(connection.execute(asked).all())]

    def newest(self) -> int:
        """Id of the newest record; 0 if there is none."""
        with self._engine.connect() as connection:
            return connection.scalar(select(RECORDS.c.id).order_by(RECORDS.c.id.desc()).limit(1)) or 0

    def before(self, wanted: Filter, *, before: int | None = None, limit: int) -> list[Record]:
        """The newest so many that are wanted, newest first; only those before an id, if one is given."""
        asked = select(RECORDS).where(*wanted.conditions()).order_by(RECORDS.c.id.desc()).limit(limit)
        return self._read(asked if before is None else asked.where(RECORDS.c.id < before))

    def after(self, wanted: Filter, *, after: int, limit: int) -> list[Record]:
        """The first so many after an id that are wanted, oldest first."""
        asked = select(RECORDS).where(RECORDS.c.id > after, *wanted.conditions()).order_by(RECORDS.c.id)
        return self._read(asked.limit(limit))

    def tree(self, call_id: str, *, limit: int = TREE_MAX) -> list[Record]:
        """The call's records, then those of all calls below it, each after its parent's; at most about the limit."""
        found = self._of_call(call_id)
        known, asked = {call_id}, [call_id] if found else []
        while asked and len(found) < limit:
            below = self._read(
                select(RECORDS).where(RECORDS.c.parent.in_(asked)).order_by(RECORDS.c.id).limit(limit - len(found))
            )
            # A tool cannot choose its call's id, so there is no loop; a record that says so must not hang us.
            asked = sorted({record.logged.call_id for record in below} - known)
            known.update(asked)
            found += below
        return found

    def _of_call(self, call_id: str) -> list[Record]:
        with self._engine.connect() as connection:
            first = connection.scalar(select(func.min(RECORDS.c.run))) or 0
            last = connection.scalar(select(func.max(RECORDS.c.run))) or 0
        runs = range(first, last + 1)
        found: list[Record] = []
        for begin in range(0, len(runs), _RUNS_AT_ONCE):
            some = runs[begin : begin + _RUNS_AT_ONCE]
            asked = select(RECORDS).where(RECORDS.c.run.in_(some), RECORDS.c.call_id == call_id)
            found += self._read(asked.order_by(RECORDS.c.id))
        return found

    def forget_before(self, time_us: int) -> int:
        """Delete some of the records of calls that began before then; how many were deleted."""
        old = select(RECORDS.c.id).where(RECORDS.c.time_us < time_us).order_by(RECORDS.c.time_us)
        return self._forget(old)

    def forget_beyond(self, count: int) -> int:
        """Delete some of the oldest records beyond so many; how many were deleted."""
        newest = select(func.max(RECORDS.c.id)).scalar_subquery()
        return self._forget(select(RECORDS.c.id).where(RECORDS.c.id <= newest - count).order_by(RECORDS.c.id))

    def _forget(self, old: Select[tuple[int]]) -> int:
        with self._engine.begin() as connection:
            return connection.execute(delete(RECORDS).where(RECORDS.c.id.in_(old.limit(DELETED_AT_ONCE)))).rowcount

    def _read(self, asked: Untyped) -> list[Record]:
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(asked)]


def _unless_there(dialect: Dialect, table: Table) -> Untyped:
    insert_into = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert_into(table).on_conflict_do_nothing()


@functools.cache
def _inserting(dialect: Dialect) -> str:
    return str(_unless_there(dialect, RECORDS).compile(dialect=dialect))


def _row(number: int, made: Made) -> tuple[Untyped, ...]:
    case, call_id, *told = made.logged
    alike = _alike(case, made.judgement)
    return (number, number // RUN, call_id or None, *told, made.counted, *alike)


@functools.lru_cache(maxsize=CASES)
def _alike(case: Case, judgement: Judgement) -> tuple[Untyped, ...]:
    """The columns that records of one case have in common."""
    caller = case.caller
    return (
        *(int(case.start), caller.issuer, caller.subject, ",".join(caller.roles), caller.domain),
        *(",".join(caller.clearances), caller.actor, case.service, case.method, case.contract),
        *(int(case.outcome), case.code, case.details, judgement.bundle, case.rule or judgement.rule),
        json.dumps([*map(list, judgement.shadow)]) if judgement.shadow else "",
    )


def _record(row: Row[Untyped]) -> Record:
    case = Case(
        start=bool(row.start),
        caller=Caller(row.issuer, row.subject, _list(row.roles), row.domain, _list(row.clearances), row.actor),
        service=row.service,
        method=row.method,
        contract=row.contract,
        outcome=Outcome(row.outcome),
        rule=row.rule,
        code=row.code,
        details=row.details,
    )
    logged = Logged(
        case=case,
        call_id=row.call_id or "",
        time_us=row.time_us,
        parent=row.parent,
        trace_id=row.trace_id,
        latency_ms=row.latency_ms,
        bytes_in=row.bytes_in,
        bytes_out=row.bytes_out,
        provenance=row.provenance,
    )
    shadow: Sequence[tuple[str, str]] = [(rule, would) for rule, would in json.loads(row.shadow or "[]")]
    return Record(row.id, logged, Judgement(row.bundle, row.rule, tuple(shadow)), row.counted)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
