"""Blocks on the disk: every change in the database, and what is in force in a file beside it.

The table of changes is only ever added to: what was blocked, by whom and why
stays known. The file is there for a gateway that starts while the database
cannot be read, or finds it gone: it never starts without the blocks it had.
Everything here waits for the disk or the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any as Untyped

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import BigInteger, Column, Engine, Index, Integer, MetaData, Row, String, Table, func, insert, select

from gateway.blocks.words import Action, Block, CallerId, Change, Kind, Target
from llmesh.home import write_atomically

__all__ = ["CHANGES", "TABLES", "BlocksLostError", "Store", "row_of"]

log = logging.getLogger(__name__)

TABLES = MetaData()
CHANGES = Table(
    "block_history",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("by_issuer", String(128), nullable=False),
    Column("by_subject", String(256), nullable=False),
    Column("end_reason", String(300), nullable=False),
    Column("block", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("issuer", String(128), nullable=False),
    Column("name", String(511), nullable=False),
    Column("reason", String(300), nullable=False),
    Column("blocked_by_issuer", String(128), nullable=False),
    Column("blocked_by_subject", String(256), nullable=False),
    Column("blocked_at_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=True),
    Index("block_history_of_target", "kind", "issuer", "name", "number"),
    Index("block_history_of_block", "block"),
)
_COUNTED = select(func.count()).select_from(CHANGES)
_NEWEST = (
    select(func.max(CHANGES.c.number))
    .where(CHANGES.c.action == Action.BLOCKED)
    .group_by(CHANGES.c.kind, CHANGES.c.issuer, CHANGES.c.name)
)
_ENDED = select(CHANGES.c.block).where(CHANGES.c.action != Action.BLOCKED)
_IN_FORCE = select(CHANGES).where(CHANGES.c.number.in_(_NEWEST), CHANGES.c.block.not_in(_ENDED))
_COPY = TypeAdapter(list[Block])


class BlocksLostError(Exception):
    """What is blocked cannot be known. The message says why and what to do."""


class Store:
    """The blocks of one mesh."""

    def __init__(self, opened: Callable[[], Engine], copy: Path) -> None:
        """opened: the database, each time it is asked for; raises SQLAlchemyError. copy: the file beside it."""
        self._opened = opened
        self._copy = copy
        # Whether the copy holds something else than it was last told to.
        self.copy_is_behind = False

    def load(self, held: Collection[Block] | None = None) -> tuple[Sequence[Block], int]:
        """The blocks in force, and of how many changes they are made. Raises SQLAlchemyError, or BlocksLostError.

        held: in force so far; None, as at the start: those of the copy. Those
        that the database has never heard of are put back into it: it is
        another one, or was lost. The end of a block ends no other one of the
        same target: whoever ended it may not have seen that one.
        """
        held = self._copied() if held is None else held
        with self._opened().begin() as connection:
            known = set(connection.scalars(select(CHANGES.c.block).distinct())) if held else set[str]()
            lost = [block for block in held if block.id not in known]
            for block in lost:
                log.warning("block put back into the database", extra={"block": block.id, "target": str(block.target)})
                connection.execute(insert(CHANGES), row_of(Change(Action.BLOCKED, block, block.at_us, block.by)))
            # First: a change that is committed in between is one too many later, and read then.
            count = connection.scalar(_COUNTED) or 0
            blocks = [_change(row).block for row in connection.execute(_IN_FORCE)]
        self.copy(blocks)
        return blocks, count

    def copied(self) -> Sequence[Block]:
        """The blocks of the copy. Raises BlocksLostError if there is none, or it cannot be read."""
        if not self._copy.exists():
            raise BlocksLostError(f"there is no copy of what is blocked at `{self._copy}`")
        return self._copied()

    def _copied(self) -> Sequence[Block]:
        try:
            return _COPY.validate_json(self._copy.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            message = (
                f"`{self._copy}`, the copy of what is blocked, cannot be read ({type(error).__name__}): "
                "restore it, or remove it to go by the database alone"
            )
            raise BlocksLostError(message) from error

    def copy(self, blocks: Iterable[Block]) -> None:
        """Let the copy hold these. A disk that does not take it is logged: the database has them."""
        try:
            write_atomically(self._copy, _COPY.dump_json(list(blocks)))
        except OSError:
            if not self.copy_is_behind:
                log.exception("copy of the blocks not written", extra={"path": str(self._copy)})
            self.copy_is_behind = True
        else:
            self.copy_is_behind = False

    def add(self, change: Change) -> None:
        """Keep a change; its number is the next one. Raises SQLAlchemyError."""
        with self._opened().begin() as connection:
            connection.execute(insert(CHANGES), row_of(change))

    def count(self) -> int:
        """How many changes there are. Raises SQLAlchemyError.

        Their numbers do not tell what is new: of two gateways, the one that
        took the lower number may commit last.
        """
        with self._opened().connect() as connection:
            return connection.scalar(_COUNTED) or 0

    def newest(self, *, before: int | None, limit: int) -> Sequence[Change]:
        """At most so many changes, the newest first; before: of lower numbers than this. Raises SQLAlchemyError."""
        wanted = select(CHANGES).order_by(CHANGES.c.number.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(CHANGES.c.number < before)
        with self._opened().connect() as connection:
            return [_change(row) for row in connection.execute(wanted)]


def row_of(change: Change) -> dict[str, object]:
    """A change as a row of CHANGES, without its number."""
    block, by = change.block, change.by or CallerId("", "")
    return {
        "action": change.action,
        "at_us": change.at_us,
        "by_issuer": by.issuer,
        "by_subject": by.subject,
        "end_reason": change.reason,
        "block": block.id,
        "kind": block.target.kind,
        "issuer": block.target.issuer,
        "name": block.target.name,
        "reason": block.reason,
        "blocked_by_issuer": block.by.issuer,
        "blocked_by_subject": block.by.subject,
        "blocked_at_us": block.at_us,
        "until_us": block.until_us,
    }


def _change(row: Row[Untyped]) -> Change:
    by = CallerId(row.by_issuer, row.by_subject)
    block = Block(
        id=row.block,
        target=Target(Kind(row.kind), row.name, row.issuer),
        reason=row.reason,
        by=CallerId(row.blocked_by_issuer, row.blocked_by_subject),
        at_us=row.blocked_at_us,
        until_us=row.until_us,
    )
    return Change(Action(row.action), block, row.at_us, by if by.subject else None, row.end_reason, row.number)
