"""The passages that a tool's answers are made of, by what they say, and the best of them for a query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmesh.retrieval.asked import Asked, Meaning
from llmesh.retrieval.fusing import Flags, Scores, fuse
from llmesh.retrieval.vectors import key_of

__all__ = ["Passages"]

# Of each, words and meanings, so many of the best are compared by both.
_LOOKED_AT = 100


class Passages:
    """Texts by place. Immutable; safe to read from any thread."""

    def __init__(self, texts: Sequence[str]) -> None:
        """texts: what a model reads of each passage, not empty; of long ones it reads the first 250 words or so."""
        self.texts = {key_of(text): text for text in texts}
        self._keys = [key_of(text) for text in texts]
        self._places: dict[bytes, list[int]] = {}
        for at, key in enumerate(self._keys):
            self._places.setdefault(key, []).append(at)

    def best(self, shares: Scores, passing: Flags, asked: Asked, *, limit: int) -> list[tuple[int, float]]:
        """At most limit places with their scores, above 0 and at most 1; best first, equal ones in their order.

        shares: how much of the asked words each passage says, 0 to 1. passing: which may be found.
        """
        scores = np.where(passing, shares, 0).astype(np.float32)
        if asked.meaning is not None:
            cosines = self._cosines(scores, passing, asked.meaning, max(_LOOKED_AT, 2 * limit))
            scores = np.where(passing, fuse(scores, cosines), 0)
        best: list[int] = np.argsort(-scores, kind="stable")[:limit].tolist()
        return [(at, min(float(scores[at]), 1.0)) for at in best if scores[at] > 0]

    def _cosines(self, shares: Scores, passing: Flags, meaning: Meaning, count: int) -> Scores:
        """Those of the count nearest that pass, and of as many that say most; NaN where one is not known, else 0."""
        found = meaning.index.near(meaning.vector, count)
        if not passing.all() and sum(passing[at] for key in found for at in self._places.get(key, ())) < count:
            # Those that pass may all be farther than the nearest.
            found = meaning.index.cosines(meaning.vector, {self._keys[at] for at in np.flatnonzero(passing)})
        leading: list[int] = np.argsort(-shares, kind="stable")[:count].tolist()
        worded = [self._keys[at] for at in leading if shares[at] > 0]
        found |= meaning.index.cosines(meaning.vector, (key for key in worded if key not in found))
        cosines = np.zeros(len(shares), dtype=np.float32)
        for key in (*found, *worded):
            cosines[self._places.get(key, [])] = found.get(key, np.nan)
        return cosines
