"""Learns what tools mean: has their texts embedded, and keeps the vectors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.search.embedding import BATCH
from llmesh.embedding import Embedded, NotEmbeddedError
from llmesh.errand import Errand

# It brings numpy, which a gateway need not wait for at its start.
if TYPE_CHECKING:
    from gateway.search.index import Entry
    from gateway.search.vectors import Vector, Vectors

__all__ = ["Learner"]

log = logging.getLogger(__name__)

# Of those that are known, so many more are shown at a time.
_SHOWN_SHARE = 1 / 8


class Learner:
    """The vectors of one mesh's tools. One task at a time may learn."""

    def __init__(self, embed: Callable[[Sequence[str]], Awaitable[Embedded]], path: Path) -> None:
        """embed: gives the vectors of at most BATCH texts, or raises NotEmbeddedError. path: where they are kept."""
        self._embed = embed
        self._path = path
        self._loading = Errand(self._load)
        self._vectors: Vectors | None = None

    async def vectors(self) -> Vectors:
        """Those that there are; a new object once there are more. Read from the disk at first."""
        while self._vectors is None:
            await self._loading.result()
        return self._vectors

    async def _load(self) -> None:
        # It gives nothing: an errand keeps what it last gave, and these make room for newer ones.
        from gateway.search.vectors import load

        # Whoever asked while another loaded them has those.
        self._vectors = self._vectors or await asyncio.to_thread(load, self._path)

    async def learn(self, entries: Iterable[Entry], *, again: str = "") -> None:
        """Make the vectors that are missing, and keep all of them. Raises NotEmbeddedError; what was made is kept.

        again: the name of a model; vectors of any other are made again.
        """
        before, several = await self.vectors(), list(entries)
        now = self._vectors = before.of(again) if again else before
        try:
            # Another model than before makes all vectors anew.
            while wanted := await asyncio.to_thread(_wanted, several, now):
                await self._make(wanted, now)
                now = await self.vectors()
        finally:
            await self._save(before, {key for entry in several for key in entry.meanings})

    async def _make(self, wanted: Sequence[tuple[bytes, str]], known: Vectors) -> None:
        """Make vectors. The more are known, the more are shown at a time: each time costs as many as there are."""
        from gateway.search.vectors import read

        model = ""
        made: dict[bytes, Vector] = {}
        try:
            for at in range(0, len(wanted), BATCH):
                batch = wanted[at : at + BATCH]
                answer = await self._embed([text for _, text in batch])
                if model not in ("", answer.model):
                    raise NotEmbeddedError("the model servers of the mesh embed by different models")
                model = answer.model
                made.update(zip((key for key, _ in batch), read(answer.vectors), strict=True))
                if len(made) >= len(known.of(model).known) * _SHOWN_SHARE:
                    self._vectors = known = known.with_(model, made)
                    made.clear()
        finally:
            if made:
                self._vectors = known.with_(model, made)

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


def _wanted(entries: Sequence[Entry], vectors: Vectors) -> Sequence[tuple[bytes, str]]:
    """Texts that have no vector, by their keys.

    Those of one length together: a batch takes as long as if all its texts were as long as the longest.
    """
    from gateway.search.index import missing

    return sorted(missing(entries, vectors).items(), key=lambda item: len(item[1]))
