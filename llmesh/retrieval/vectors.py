"""Vectors of texts on disk: kept as they are made, so that a text is embedded once."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from llmesh.retrieval.nearest import Vector

__all__ = ["VectorFile", "key_of"]

log = logging.getLogger(__name__)
_TABLE = """
    CREATE TABLE IF NOT EXISTS vectors (model TEXT, key BLOB, vector BLOB, PRIMARY KEY (model, key)) WITHOUT ROWID
"""
_TYPE = np.dtype("<f4")
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# Of a vector's length, from 1.
_TOLERANCE = 0.01


def key_of(text: str) -> bytes:
    """What a text's vector is kept by."""
    return hashlib.sha256(text.encode()).digest()


class VectorFile:
    """One file of vectors, by models and keys. Several processes may use it. Its methods block on the disk.

    They raise OSError and sqlite3.Error. Whoever meets a damaged file removes it, and it counts as none from then on.
    """

    def __init__(self, path: Path) -> None:
        """path: of the file; its folder is made when something is put there."""
        self._path = path

    def model(self) -> str:
        """One of the models whose vectors there are; empty if there are none."""
        with self._open() as file:
            found = file.execute("SELECT model FROM vectors LIMIT 1").fetchone()
        return str(found[0]) if found else ""

    def get(self, model: str, keys: Collection[bytes]) -> dict[bytes, Vector]:
        """Those of the keys that there are; without those that are no vectors like the others."""
        with self._open() as file:
            rows = file.execute("SELECT key, vector FROM vectors WHERE model = ?", (model,)).fetchall()
        wanted = set(keys)
        found = {
            bytes(key): vector for key, content in rows if key in wanted and (vector := _vector(content)) is not None
        }
        sizes = Counter(map(len, found.values())).most_common(1)
        return {key: vector for key, vector in found.items() if len(vector) == sizes[0][0]}

    def put(self, model: str, vectors: Mapping[bytes, Vector]) -> None:
        """Keep more; they are on the disk when this returns."""
        rows = [(model, key, vector.astype(_TYPE).tobytes()) for key, vector in vectors.items()]
        with self._open() as file:
            file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def keep(self, model: str, keys: Collection[bytes]) -> None:
        """Forget all others."""
        with self._open() as file:
            file.execute("CREATE TEMPORARY TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID")
            file.executemany("INSERT INTO used VALUES (?)", [(key,) for key in set(keys)])
            file.execute("DELETE FROM vectors WHERE model <> ? OR key NOT IN (SELECT key FROM used)", (model,))

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """The file, in one transaction."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as file, file:
                file.execute(_TABLE)
                yield file
        except sqlite3.DatabaseError as err:
            if err.sqlite_errorcode in _DAMAGED:
                log.warning("vectors were unusable", extra={"path": str(self._path), "reason": str(err)})
                self._path.unlink(missing_ok=True)
            raise


def _vector(content: bytes) -> Vector | None:
    """What was kept; None if it is no vector of length 1."""
    if len(content) % _TYPE.itemsize:
        return None
    vector = np.frombuffer(content, dtype=_TYPE)
    return vector if abs(float(np.linalg.norm(vector)) - 1) <= _TOLERANCE else None
