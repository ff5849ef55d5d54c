"""What is blocked now: one writer, any number of readers.

A block is kept before it is in force, and its end before it ends. Whatever
cannot be kept changes nothing. What has begun to be kept is brought to its
end, even where whoever asked for it is gone: memory, database and copy stay one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any as Untyped
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gateway.blocks.store import BlocksLostError, Store
from gateway.blocks.words import Action, Block, CallerId, Change, Kind, Target
from gateway.catalog import Tool
from gateway.clock import Clock

__all__ = ["Blocks", "BlocksNotKeptError"]

log = logging.getLogger(__name__)

# How soon a block ends whose time has come, and a change by another gateway is seen.
POLL_S = 0.5
_NONE: Mapping[str, Block] = MappingProxyType({})

T = TypeVar("T")


class BlocksNotKeptError(Exception):
    """The database does not take a change, and nothing was changed. The message says why."""


class Blocks:
    """The blocks of one mesh."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        """Read what is blocked, from the copy if the database cannot be read. Raises BlocksLostError. Waits."""
        self._store = store
        self._clock = clock
        self._fault = ""
        self._count = 0
        self._writing = asyncio.Lock()
        self._changed = asyncio.Condition()
        try:
            read, self._count = store.load()
        except SQLAlchemyError as error:
            self._fail(error)
            read = self._copied(error)
        self._current: Mapping[Target, Block] = MappingProxyType({block.target: block for block in read})

    def _copied(self, error: SQLAlchemyError) -> Sequence[Block]:
        try:
            return self._store.copied()
        except BlocksLostError as lost:
            raise BlocksLostError(f"{self._fault}; and {lost}") from error

    @property
    def current(self) -> Mapping[Target, Block]:
        """The blocks in force; another object after each change."""
        return self._current

    def of_tool(self, tool: Tool) -> Mapping[str, Block]:
        """What stops a tool: its methods' blocks by their names; under an empty one the tool's own, or its domain's."""
        if not self._current:
            return _NONE
        stops = {
            method.name: self._current.get(Target(Kind.METHOD, f"{tool.service}/{method.name}"))
            for method in tool.methods
        }
        stops[""] = self._current.get(Target(Kind.TOOL, tool.service)) or self._current.get(
            Target(Kind.DOMAIN, tool.domain)
        )
        return {name: block for name, block in stops.items() if block is not None}

    @property
    def error(self) -> str:
        """Why nothing can be blocked or unblocked now; empty while it can."""
        return self._fault

    async def block(self, target: Target, reason: str, *, by: CallerId, until_us: int | None = None) -> Block:
        """Stop the target; if it is stopped in the same words already, nothing changes. Raises BlocksNotKeptError."""
        return await _to_its_end(self._block(target, reason, by, until_us))

    async def _block(self, target: Target, reason: str, by: CallerId, until_us: int | None) -> Block:
        async with self._writing:
            found = self._current.get(target)
            if found is not None and (found.reason, found.until_us) == (reason, until_us):
                return found
            now_us = self._now_us()
            block = Block(secrets.token_hex(8), target, reason, by, now_us, until_us)
            # First the copy: where the gateway dies in between, the block is put back.
            after = {**self._current, target: block}
            await asyncio.to_thread(self._store.copy, after.values())
            try:
                await self._keep(Change(Action.BLOCKED, block, now_us, by))
            except BlocksNotKeptError:
                await asyncio.to_thread(self._store.copy, self._current.values())
                raise
            await self._take(after, self._count + 1)
            return block

    async def unblock(self, target: Target, *, by: CallerId, reason: str = "") -> Block | None:
        """End a block; None if there is none. Raises BlocksNotKeptError."""
        return await _to_its_end(self._unblock(target, by, reason))

    async def _unblock(self, target: Target, by: CallerId, reason: str) -> Block | None:
        async with self._writing:
            found = self._current.get(target)
            if found is not None:
                await self._end(Change(Action.UNBLOCKED, found, self._now_us(), by, reason))
            return found

    async def _expire(self, block: Block) -> None:
        """End a block whose time has come, and no other that stands in its place by now."""
        async with self._writing:
            if self._current.get(block.target) == block:
                await self._end(Change(Action.EXPIRED, block, self._now_us(), by=None))

    async def _end(self, change: Change) -> None:
        await self._keep(change)
        after = {key: block for key, block in self._current.items() if key != change.block.target}
        await asyncio.to_thread(self._store.copy, after.values())
        await self._take(after, self._count + 1)

    async def _keep(self, change: Change) -> None:
        facts = {"block": change.block.id, "target": str(change.block.target), "by": change.by and change.by.subject}
        try:
            await asyncio.to_thread(self._store.add, change)
        except SQLAlchemyError as error:
            self._fail(error)
            raise BlocksNotKeptError(self._fault) from error
        log.warning("%s", change.action, extra=facts)

    def _now_us(self) -> int:
        return round(self._clock.unix_s() * 1e6)

    async def _take(self, after: Mapping[Target, Block], count: int) -> None:
        """Let these be in force. count: of how many changes they are made."""
        async with self._changed:
            self._count = count
            if after is not self._current:
                self._current = MappingProxyType(dict(after))
                self._changed.notify_all()

    async def changes(self, *, before: int | None, limit: int) -> Sequence[Change]:
        """What was changed, the newest first; before: a change's number. Raises BlocksNotKeptError."""
        try:
            return await asyncio.to_thread(self._store.newest, before=before, limit=limit)
        except SQLAlchemyError as error:
            self._fail(error)
            raise BlocksNotKeptError(self._fault) from error

    async def watch(self) -> AsyncGenerator[Mapping[Target, Block]]:
        """The blocks in force, then each time they change; a slow reader skips to the newest."""
        seen: Mapping[Target, Block] | None = None
        while True:
            async with self._changed:
                while self._current is seen:
                    await self._changed.wait()
                seen = self._current
            yield seen

    async def run(self) -> None:
        """Until cancelled: end what has come to its time, and follow the database."""
        while True:
            await self._clock.sleep(POLL_S)
            try:
                await self._follow()
                for block in list(self._current.values()):
                    if block.until_us is not None and block.until_us <= self._now_us():
                        await _to_its_end(self._expire(block))
            except BlocksNotKeptError:
                # Whatever could not be ended stays, and is tried again.
                continue

    async def _follow(self) -> None:
        """Take up what a gateway that this one succeeds, or one beside it, has kept; or all, after a fault."""
        async with self._writing:
            held = self._current.values()
            if self._store.copy_is_behind:
                await asyncio.to_thread(self._store.copy, held)
            try:
                # As many as are known of are those that are known: no change is ever taken away.
                if not self._fault and await asyncio.to_thread(self._store.count) == self._count:
                    return
                read, count = await asyncio.to_thread(self._store.load, held)
            except SQLAlchemyError as error:
                self._fail(error)
                raise BlocksNotKeptError(self._fault) from error
            self._fault = ""
            after = {block.target: block for block in read}
            await self._take(self._current if after == self._current else after, count)

    def _fail(self, error: SQLAlchemyError) -> None:
        words = str(getattr(error, "orig", None) or error)
        fault = f"the database of the blocks does not answer: {words}"
        if fault != self._fault:
            log.error("blocks cannot be kept", extra={"error": fault})
        self._fault = fault


async def _to_its_end(change: Coroutine[Untyped, Untyped, T]) -> T:
    """Make a change; whoever is cancelled while waiting for it is so once it has been made, or has failed."""
    task = asyncio.ensure_future(change)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
