"""What was learnt, on disk as far as the disk takes it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from llmesh.retrieval.nearest import Nearest, Vector
from llmesh.retrieval.shelf import Shelf
from llmesh.retrieval.vectors import VectorFile

__all__ = ["Kept"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Kept:
    """The index and the vectors in one folder.

    Where the disk fails there are none, and nothing is kept: no method raises. The log says so once for each reason.
    """

    def __init__(self, folder: Path) -> None:
        """folder: made when there is something to keep."""
        self._folder = folder
        self._shelf = Shelf(folder)
        self._file = VectorFile(folder / "vectors")
        self._told = ""

    async def index(self) -> Nearest | None:
        """The index that was put there last; None if there is none."""
        return await self._tried(self._shelf.load, failing=None)

    async def model(self) -> str:
        """One of the models whose vectors there are; empty if there are none."""
        return await self._tried(self._file.model, failing="")

    async def vectors(self, model: str, keys: Collection[bytes]) -> dict[bytes, Vector]:
        """Those of the keys that there are."""
        return await self._tried(partial(self._file.get, model, keys), failing=dict[bytes, Vector]())

    async def add(self, model: str, vectors: Mapping[bytes, Vector]) -> None:
        """Keep more vectors."""
        await self._tried(partial(self._file.put, model, vectors), failing=None)

    async def put(self, index: Nearest) -> None:
        """Keep an index in place of the one there is, and forget all vectors that are not in it."""
        await self._tried(partial(self._shelf.save, index), failing=None)
        await self._tried(partial(self._file.keep, index.model, index.rows.keys()), failing=None)

    async def _tried(self, work: Callable[[], T], *, failing: T) -> T:
        try:
            return await asyncio.to_thread(work)
        # RuntimeError: hnswlib's, of a file that it cannot read or write.
        except (OSError, RuntimeError, sqlite3.Error) as err:
            if str(err) != self._told:
                self._told = str(err)
                log.warning(
                    "meanings are kept in memory alone", extra={"folder": str(self._folder), "reason": str(err)}
                )
            return failing
