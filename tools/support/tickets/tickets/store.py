"""The ticket store: SQLite, one writer at a time.

Every method is one transaction; it blocks, so call it in a thread. Any number
of threads may call it. Each change to a ticket is written down beside it in
the same transaction, in one order for all processes that share the file:

    change -> table `change` -> changes_after -> whoever watches
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from importlib import resources
from pathlib import Path

from acme.support.v1 import tickets_pb2 as pb

from llmesh.errors import AlreadyExists, Conflict, InvalidCall, NotFound, Unavailable, Violation
from tickets.ticket import Change, Draft, Filter, Maker, Page, Ticket, name_ticket

__all__ = ["Store"]

_VERSION = 1
# Changes kept for watchers. One falls this far behind only if it has stopped reading.
_KEPT_CHANGES = 10_000
_REQUEST_AGE_US = 7 * 24 * 3600 * 1_000_000
# How long to wait while another process writes.
_BUSY_S = 2.0
_COLUMNS = (
    "number, title, description, reporter_name, reporter_email, priority, state, "
    "resolution, created_by, create_us, update_us, close_us"
)


class Store:
    """Tickets in the SQLite file at path, made if it isn't there, closed to other users.

    clock: Unix time in seconds. Raises sqlite3.DatabaseError if the file is
    not a ticket store, or one of a later version.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        kept_changes: int = _KEPT_CHANGES,
        busy_s: float = _BUSY_S,
    ) -> None:
        self._clock = clock
        self._kept_changes = kept_changes
        self._lock = threading.Lock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file, once running calls have ended."""
        with self._lock:
            self._db.close()

    def create(self, draft: Draft, maker: Maker, *, request_id: str = "") -> Ticket:
        """Make a ticket; with a request id that the maker has used, give the one it made.

        Raises AlreadyExists if that one was made from another draft, or is deleted.
        """
        with self._writing() as now_us:
            if request_id and (made := self._made_before(draft, maker, request_id)):
                return made
            number = self._insert(draft, maker, now_us)
            if request_id:
                row = (maker.issuer, maker.subject, request_id, _digest(draft), number, now_us)
                self._db.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", row)
            self._db.execute("DELETE FROM request WHERE create_us < ?", (now_us - _REQUEST_AGE_US,))
            self._note(pb.CHANGE_KIND_CREATED, number, now_us)
            return self._find(number)

    def get(self, number: int) -> Ticket:
        """The ticket. Raises NotFound."""
        with self._lock:
            return self._find(number)

    def page(self, filters: Filter, *, limit: int, before: int | None = None) -> Page:
        """At most limit tickets, the newest first, those numbered below `before`; None: from the newest."""
        with self._reading():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM ticket WHERE (:before IS NULL OR number < :before)"  # noqa: S608 - constants alone
                " AND (:state = 0 OR state = :state) AND (:priority = 0 OR priority = :priority)"
                " ORDER BY number DESC LIMIT :limit",
                {"before": before, "state": filters.state, "priority": filters.priority, "limit": limit + 1},
            ).fetchall()
            sequence = self._last_sequence()
        tickets = [Ticket(*row) for row in rows[:limit]]
        return Page(tickets, more=len(rows) > limit, sequence=sequence)

    def close_ticket(self, number: int, resolution: str) -> Ticket:
        """Close it. Raises NotFound, and Conflict if it is closed."""
        with self._writing() as now_us:
            if self._find(number).state == pb.TICKET_STATE_CLOSED:
                message = f"ticket `{name_ticket(number)}` is closed already"
                raise Conflict(message, reason="TICKET_CLOSED")
            self._set_state(number, pb.TICKET_STATE_CLOSED, resolution=resolution, update_us=now_us, close_us=now_us)
            self._note(pb.CHANGE_KIND_CLOSED, number, now_us)
            return self._find(number)

    def reopen(self, number: int) -> Ticket:
        """Open it again. Raises NotFound, and Conflict if it is open."""
        with self._writing() as now_us:
            if self._find(number).state == pb.TICKET_STATE_OPEN:
                message = f"ticket `{name_ticket(number)}` is open"
                raise Conflict(message, reason="TICKET_OPEN")
            self._set_state(number, pb.TICKET_STATE_OPEN, resolution="", update_us=now_us, close_us=None)
            self._note(pb.CHANGE_KIND_REOPENED, number, now_us)
            return self._find(number)

    def delete(self, number: int) -> None:
        """Delete it, from the file's free pages and its log too. Raises NotFound."""
        with self._writing() as now_us:
            self._find(number)
            self._db.execute("DELETE FROM ticket WHERE number = ?", (number,))
            self._db.execute("UPDATE request SET digest = x'' WHERE number = ?", (number,))
            self._note(pb.CHANGE_KIND_DELETED, number, now_us)
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def last_sequence(self) -> int:
        """The sequence of the last change; 0 if nothing has ever changed."""
        with self._lock:
            return self._last_sequence()

    def changes_after(self, sequence: int, *, limit: int) -> Sequence[Change]:
        """The next changes, at most limit, in order.

        Raises InvalidCall if no change has had that sequence yet, and Conflict
        if the ones after it are no longer kept.
        """
        with self._reading():
            last = self._last_sequence()
            if sequence > last:
                violation = Violation("after_sequence", f"must be at most {last}, the last change's")
                message = f"no change has had sequence {sequence} yet"
                raise InvalidCall(message, [violation], reason="SEQUENCE_UNKNOWN")
            if sequence < last - self._kept_changes:
                message = f"changes after {sequence} are no longer kept; list again and watch from its sequence"
                raise Conflict(message, reason="CHANGES_GONE", metadata={"last_sequence": str(last)})
            columns = ", ".join(f"ticket.{name}" for name in _COLUMNS.split(", "))
            rows = self._db.execute(
                f"SELECT sequence, kind, change.number, change_us, {columns} FROM change"  # noqa: S608 - constants alone
                " LEFT JOIN ticket USING (number) WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (sequence, limit),
            ).fetchall()
        return [Change(*row[:4], ticket=None if row[4] is None else Ticket(*row[4:])) for row in rows]

    def _prepare(self) -> None:
        # Deleted contents are overwritten with zeros; an answered write survives a power cut.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in resources.files("tickets").joinpath("schema.sql").read_text("utf-8").split(";\n"):
                    self._db.execute(statement)
            elif version != _VERSION:
                message = f"the ticket store has version {version}; this tool knows {_VERSION}"
                raise sqlite3.DatabaseError(message)

    @contextmanager
    def _writing(self) -> Generator[int]:
        """A transaction that writes; gives the time of it, in microseconds."""
        with self._lock:
            self._begin_writing()
            with self._db:
                yield round(self._clock() * 1_000_000)

    def _begin_writing(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            message = "another process is writing to the ticket store"
            raise Unavailable(message, retry_after_s=1) from err

    @contextmanager
    def _reading(self) -> Generator[None]:
        """A transaction whose reads see one state."""
        with self._lock:
            self._db.execute("BEGIN")
            with self._db:
                yield

    def _find(self, number: int) -> Ticket:
        query = f"SELECT {_COLUMNS} FROM ticket WHERE number = ?"  # noqa: S608 - constants alone
        row = self._db.execute(query, (number,)).fetchone()
        if row is None:
            name = name_ticket(number)
            message = f"there is no ticket `{name}`"
            raise NotFound(message, resource=("ticket", name), reason="TICKET_UNKNOWN")
        return Ticket(*row)

    def _insert(self, draft: Draft, maker: Maker, now_us: int) -> int:
        (number,) = self._db.execute(
            "INSERT INTO ticket (title, description, reporter_name, reporter_email, priority, state, created_by,"
            " create_us, update_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
            (*astuple(draft), pb.TICKET_STATE_OPEN, maker.subject, now_us, now_us),
        ).fetchone()
        return number

    def _made_before(self, draft: Draft, maker: Maker, request_id: str) -> Ticket | None:
        row = self._db.execute(
            "SELECT digest, number FROM request WHERE issuer = ? AND subject = ? AND request_id = ?",
            (maker.issuer, maker.subject, request_id),
        ).fetchone()
        if row is None:
            return None
        digest, number = row
        name = name_ticket(number)
        if not digest:
            message = f"the request id made ticket `{name}`, which is deleted"
            raise AlreadyExists(message, resource=("ticket", name), reason="REQUEST_ID_USED")
        if digest != _digest(draft):
            message = f"the request id made ticket `{name}` from other contents"
            raise AlreadyExists(message, resource=("ticket", name), reason="REQUEST_ID_USED")
        return self._find(number)

    def _set_state(
        self, number: int, state: pb.TicketState.ValueType, *, resolution: str, update_us: int, close_us: int | None
    ) -> None:
        self._db.execute(
            "UPDATE ticket SET state = ?, resolution = ?, update_us = ?, close_us = ? WHERE number = ?",
            (state, resolution, update_us, close_us, number),
        )

    def _note(self, kind: pb.ChangeKind.ValueType, number: int, now_us: int) -> None:
        """Write the change down, and forget the oldest."""
        row = (kind, number, now_us)
        last = self._db.execute("INSERT INTO change (kind, number, change_us) VALUES (?, ?, ?)", row).lastrowid
        self._db.execute("DELETE FROM change WHERE sequence <= ? - ?", (last, self._kept_changes))

    def _last_sequence(self) -> int:
        return self._db.execute("SELECT coalesce(max(sequence), 0) FROM change").fetchone()[0]


def _digest(draft: Draft) -> bytes:
    return hashlib.sha256(json.dumps(astuple(draft)).encode()).digest()
