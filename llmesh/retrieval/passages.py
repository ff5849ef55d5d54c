"""The passages that a tool's answers are made of, by what they say, and the best of them for a query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmesh.retrieval.asked import Asked, Meaning
from llmesh.retrieval.fusing import Flags, Scores, fuse
from llmesh.retrieval.nearest import Nearest, Rows
from llmesh.retrieval.vectors import key_of

__all__ = ["Passages"]

# Of each, words and meanings, so many of the best are compared by both.
_LOOKED_AT = 100
# Where a smaller share passes, all that do are looked at; else, among so many times as many as should do.
_WIDE, _MORE = 1 / 8, 1.5
# The row of what an index does not know.
_UNKNOWN = -1
# Of a text: more than any model reads, and less than the model server refuses.
_READ_CHARS = 8192


class Passages:
    """Texts by place. Immutable; safe to read from any thread."""

    def __init__(self, texts: Sequence[str]) -> None:
        """texts: what a model reads of each passage, not empty; of long ones it reads the first 250 words or so."""
        read = [text[:_READ_CHARS] for text in texts]
        self._keys = [key_of(text) for text in read]
        self.texts = dict(zip(self._keys, read, strict=True))
        # The index that was asked last, and the row in it of each place.
        self._aligned: tuple[Nearest | None, Rows] = None, np.empty(0, dtype=np.intp)

    def best(self, shares: Scores, passing: Flags, asked: Asked, *, limit: int) -> list[tuple[int, float]]:
        """At most limit places with their scores, above 0 and at most 1; best first.

        Equal ones in their order; if more are equal by meaning than are looked at, any of them.

        shares: how much of the asked words each passage says, 0 to 1. passing: which may be found.
        """
        scores = np.where(passing, shares, 0).astype(np.float32)
        if asked.meaning is not None:
            cosines = self._cosines(scores, passing, asked.meaning, max(_LOOKED_AT, 2 * limit))
            scores = np.where(passing, fuse(scores, cosines), 0)
        return [(at, min(float(scores[at]), 1.0)) for at in _leading(scores, limit).tolist()]

    def _cosines(self, shares: Scores, passing: Flags, meaning: Meaning, count: int) -> Scores:
        """Those of the count nearest that pass, and of as many that say most; NaN where one is not known, else 0."""
        rows = self._rows_of(meaning.index)
        looked_at = self._near(rows, passing, meaning, count)
        looked_at[_leading(shares, count)] = True
        cosines = np.where(looked_at, np.nan, 0).astype(np.float32)
        known = np.flatnonzero(looked_at & (rows != _UNKNOWN))
        cosines[known] = meaning.index.cosines(meaning.vector, rows[known])
        return cosines

    def _near(self, rows: Rows, passing: Flags, meaning: Meaning, count: int) -> Flags:
        """The count nearest that pass, and perhaps others."""
        known = passing & (rows != _UNKNOWN)
        if known.sum() >= _WIDE * len(rows) > 0:
            share = known.sum() / len(rows)
            # Of so many more, as many should pass; but those that pass may all be farther.
            found = meaning.index.near(meaning.vector, count if share == 1 else int(_MORE * count / share))
            # One more, which is never among them, for what is not known.
            is_near = np.zeros(len(meaning.index.vectors) + 1, dtype=np.bool_)
            is_near[found] = True
            near = known & is_near[rows]
            if near.sum() >= min(count, known.sum()):
                return near
        return known

    def _rows_of(self, index: Nearest) -> Rows:
        """The row in the index of each place."""
        known, rows = self._aligned
        if known is not index:
            rows = np.array([index.rows.get(key, _UNKNOWN) for key in self._keys], dtype=np.intp)
            self._aligned = index, rows
        return rows


def _leading(scores: Scores, count: int) -> Rows:
    """The places of the highest scores above 0, at most count; equal ones in their order."""
    found = np.flatnonzero(scores > 0)
    return found[np.argsort(-scores[found], kind="stable")[:count]]
