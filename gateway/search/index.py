"""The index of a set of tools: which of them fit what is asked, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.search.ranking import Flags, Ranking
from gateway.search.vectors import Vector, Vectors
from gateway.search.words import tokens

__all__ = ["Entry", "Index", "missing"]

# What all the words that are asked count for, beside meanings that are the same: enough for a name to find its tool.
# Ranks alone, as in reciprocal rank fusion, would have a stray word weigh as much as the whole meaning.
_WORDS = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tool is found by: words with how often they count, and what it is for. key: of its meaning's vector."""

    words: Mapping[str, int]
    meaning: str
    key: bytes


class Index:
    """Some tools' words, and what they mean as far as that is known. Immutable; safe to read from any thread."""

    def __init__(self, entries: Mapping[str, Entry], vectors: Vectors, *, ranking: Ranking | None = None) -> None:
        """entries: by service name. ranking: of the same entries, if it has been made."""
        self.entries = entries
        self.vectors = vectors
        self.services = tuple(entries)
        self._ranking = ranking or Ranking([entry.words for entry in entries.values()])
        keys = [entry.key for entry in entries.values()]
        self._known = np.array([key in vectors.known for key in keys], dtype=np.bool_)
        # Those of the tools that have one, a row each.
        self._rows = np.array([vectors.known[key] for key in keys if key in vectors.known], dtype=np.float32)

    def with_(self, vectors: Vectors) -> Index:
        """The same tools, with these vectors."""
        return Index(self.entries, vectors, ranking=self._ranking)

    def rank(self, query: str, among: Flags, meaning: Vector | None) -> list[tuple[str, float]]:
        """Service names and scores above 0 of the tools that take part, best first; equal scores in order of names.

        meaning: the query's vector, by the model that made the index's; None to go by words alone.
        """
        asked = list(dict.fromkeys(tokens(query)))
        scores = self._ranking.shares(asked, among)
        if meaning is not None and len(self._rows):
            scores *= _WORDS
            # Of no other row, not even in the last digit: how sums are rounded may hang on how many rows there are.
            scores[self._known & among] += self._rows[among[self._known]] @ meaning
        hits = [(self.services[at], float(scores[at])) for at in np.flatnonzero(scores > 0)]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))

    def lacks(self, among: Flags) -> bool:
        """Whether a tool that takes part has no vector."""
        return bool((among & ~self._known).any())


def missing(entries: Iterable[Entry], vectors: Vectors) -> dict[bytes, str]:
    """Meanings that have no vector, by their keys."""
    return {entry.key: entry.meaning for entry in entries if entry.key not in vectors.known}
