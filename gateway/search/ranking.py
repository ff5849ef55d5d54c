"""How well each of some tools fits words: BM25, reckoned over no others.

What a word counts for hangs on how many tools have it. Reckoned over all of
them, the scores of tools that a caller sees would tell of those that the
caller does not see; so both the counts and the mean length are taken, for each
search, of the tools that take part. Libraries reckon scores when they index,
over everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flags", "Ranking", "Scores"]

Flags = NDArray[np.bool_]
Scores = NDArray[np.float32]
# The usual values, and Lucene's variant, whose word scores have an upper bound.
_K1, _B = 1.5, 0.75


class Ranking:
    """The words of documents, by place. Immutable; safe to read from any thread."""

    def __init__(self, documents: Sequence[Mapping[str, int]]) -> None:
        """documents: how often each word counts in each."""
        self._words: dict[str, int] = {}
        pairs = [
            (self._words.setdefault(word, len(self._words)), at, count)
            for at, counts in enumerate(documents)
            for word, count in counts.items()
        ]
        table = np.array(pairs, dtype=np.int32).reshape(-1, 3)
        table = table[np.argsort(table[:, 0], kind="stable")]
        # Where the documents of each word start, and where the last ends.
        self._starts = np.searchsorted(table[:, 0], np.arange(len(self._words) + 1))
        self._documents, self._counts = table[:, 1], table[:, 2].astype(np.float32)
        self._lengths = np.array([sum(counts.values()) for counts in documents], dtype=np.float32)

    def shares(self, asked: Sequence[str], among: Flags) -> Scores:
        """How much of what is asked each document says, 0 to 1; 0 for those that are not among those that take part.

        asked: different words. A document's BM25 score over the bound that the
        words set; those that no document has count as the rarest.
        """
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        count = int(among.sum())
        if not count or not asked:
            return scores
        lengths = 1 - _B + _B * self._lengths / max(float(self._lengths[among].mean()), 1.0)
        bound = 0.0
        for word in asked:
            places, counts = self._having(word, among)
            weight = np.log1p((count - len(places) + 0.5) / (len(places) + 0.5))
            scores[places] += weight * counts / (counts + _K1 * lengths[places])
            bound += float(weight)
        return scores / np.float32(bound)

    def _having(self, word: str, among: Flags) -> tuple[NDArray[np.int32], Scores]:
        """The documents with a word, and how often it counts in each."""
        at = self._words.get(word)
        if at is None:
            return self._documents[:0], self._counts[:0]
        span = slice(self._starts[at], self._starts[at + 1])
        places, counts = self._documents[span], self._counts[span]
        kept = among[places]
        return places[kept], counts[kept]
