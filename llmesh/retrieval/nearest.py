"""An index of vectors: which of them are nearest to one. Many are walked by hnswlib's graph; few are all looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

__all__ = ["Nearest", "Rows", "StoppedError", "Vector"]

Vector = NDArray[np.float32]
Rows = NDArray[np.intp]
# Links of a vector, and how many it is compared with to find them.
_LINKS, _BUILD_WIDTH = 16, 100
# How many a search keeps in view, at least: of 100,000 it then misses less than one in a hundred of the ten nearest.
_WIDTH = 160
# Fewer have no graph: to look at all of them takes a millisecond, and nothing is missed.
_FEW = 4096
# Vectors that are added to a graph before it is asked whether it is wanted still: a third of a second.
_STEP = 1000
# To pick rows takes a copy of them; if they are more than one in so many, all are looked at instead.
_PICKED = 8


class StoppedError(Exception):
    """An index was not built to its end: it is not wanted any more."""


class Nearest:
    """Vectors of length 1 by their keys, made by one model. Immutable; safe to read from any thread.

    rows: by their keys. vectors: by row. graph: None if they are few.
    """

    def __init__(self, model: str, keys: Iterable[bytes], vectors: Vector, graph: hnswlib.Index | None) -> None:
        """keys: in order of the rows, at least one."""
        self.model = model
        self.rows: Mapping[bytes, int] = {key: row for row, key in enumerate(keys)}
        self.vectors = vectors
        self.graph = graph
        if graph:
            graph.set_ef(_WIDTH)

    @classmethod
    def build(
        cls, model: str, vectors: Mapping[bytes, Vector], *, goes_on: Callable[[], bool] = lambda: True
    ) -> Nearest:
        """The index of at least one vector, all of one length: a third of a millisecond for each, on one core.

        goes_on: asked before each step. Raises StoppedError once it says no.
        """
        rows = np.array(list(vectors.values()), dtype=np.float32)
        if len(rows) < _FEW:
            return cls(model, vectors, rows, None)
        graph = hnswlib.Index(space="ip", dim=rows.shape[1])
        graph.init_index(max_elements=len(rows), M=_LINKS, ef_construction=_BUILD_WIDTH)
        for start in range(0, len(rows), _STEP):
            if not goes_on():
                raise StoppedError
            # In one thread: others have work too, and the graph is the same each time.
            graph.add_items(rows[start : start + _STEP], num_threads=1)
        return cls(model, vectors, rows, graph)

    @classmethod
    def load(cls, model: str, keys: Iterable[bytes], vectors: Vector, graph: Path | None) -> Nearest:
        """graph: where it was saved. A file that is damaged may end the process: look at its sum before."""
        if graph is None:
            return cls(model, keys, vectors, None)
        loaded = hnswlib.Index(space="ip", dim=vectors.shape[1])
        loaded.load_index(str(graph))
        return cls(model, keys, vectors, loaded)

    def near(self, vector: Vector, count: int) -> Rows:
        """The rows nearest to a vector; at most count, the nearest first.

        Where all are looked at, equal ones in their order.
        """
        count = min(count, len(self.vectors))
        try:
            if self.graph:
                rows, _ = self.graph.knn_query(vector, k=count, num_threads=1)
                return rows[0].astype(np.intp)
        except RuntimeError:
            # So many that are alike are linked to each other alone: from where a walk begins it reaches too few.
            pass
        return np.argsort(-(self.vectors @ vector), kind="stable")[:count]

    def cosines(self, vector: Vector, rows: Rows) -> Vector:
        """The cosine of each of the rows."""
        if len(rows) * _PICKED > len(self.vectors):
            return (self.vectors @ vector)[rows]
        return self.vectors[rows] @ vector
