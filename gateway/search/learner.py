"""Learns what tools mean: has their texts embedded, and keeps the vectors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.search.embedding import BATCH
from llmesh.embedding import Embedded

# It brings numpy, which a gateway need not wait for at its start.
if TYPE_CHECKING:
    from gateway.search.index import Entry
    from gateway.search.vectors import Vectors

__all__ = ["Learner"]

log = logging.getLogger(__name__)


class Learner:
    """The vectors of one mesh's tools. One task at a time may learn."""

    def __init__(self, embed: Callable[[Sequence[str]], Awaitable[Embedded]], path: Path) -> None:
        """embed: gives the vectors of at most BATCH texts, or raises NotEmbeddedError. path: where they are kept."""
        self._embed = embed
        self._path = path
        self._vectors: Vectors | None = None

    async def vectors(self) -> Vectors:
        """Those that there are; a new object once there are more. Read from the disk at first."""
        if self._vectors is None:
            from gateway.search.vectors import load

            self._vectors = await asyncio.to_thread(load, self._path)
        return self._vectors

    async def learn(self, entries: Iterable[Entry], *, again: str = "") -> None:
        """Make the vectors that are missing, and keep all of them. Raises NotEmbeddedError; what was made is kept.

        again: the name of a model; vectors of any other are made again.
        """
        from gateway.search.index import missing

        before, several = await self.vectors(), list(entries)
        if again:
            self._vectors = before.of(again)
        try:
            while wanted := missing(several, await self.vectors()):
                # Those of one length together: a batch takes as long as if all its texts were as long as the longest.
                await self._make(dict(sorted(wanted.items(), key=_length)[:BATCH]))
        finally:
            await self._save(before, {key for entry in several for key in entry.meanings})

    async def _make(self, texts: dict[bytes, str]) -> None:
        from gateway.search.vectors import read

        made = await self._embed(list(texts.values()))
        vectors = dict(zip(texts, read(made.vectors), strict=True))
        self._vectors = (await self.vectors()).with_(made.model, vectors)

    async def _save(self, before: Vectors, used: set[bytes]) -> None:
        from gateway.search.vectors import save

        now = await self.vectors()
        if now is before:
            return
        self._vectors = now = now.kept(used)
        try:
            await asyncio.to_thread(save, self._path, now)
        except OSError:
            # They are made again after the next start.
            log.exception("vectors could not be kept", extra={"path": str(self._path)})
        log.info("meanings of tools learnt", extra={"texts": len(now.known), "model": now.model})


def _length(item: tuple[bytes, str]) -> int:
    return len(item[1])
