"""The index of a set of tools: which of them fit what is asked, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.search.ranking import Flags, Ranking
from gateway.search.vectors import Vector, Vectors
from gateway.search.words import tokens

__all__ = ["Entry", "Index", "missing"]

# What all the words that are asked count for, beside meanings that are the same: enough for a name to find its tool.
# Ranks alone, as in reciprocal rank fusion, would have a stray word weigh as much as the whole meaning.
_WORDS = 0.5
# Of the cosine: a tool that comes no nearer, and says no word of what is asked, does not bear on it at all. Of the
# labelled questions' answers among the first five none is below; questions that no tool answers stay below mostly.
_NEAR = 0.25


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tool is found by: words with how often they count, and texts of what it is for, by their vectors' keys."""

    words: Mapping[str, int]
    meanings: Mapping[bytes, str]


class Index:
    """Some tools' words, and what they mean as far as that is known. Immutable; safe to read from any thread."""

    def __init__(self, entries: Mapping[str, Entry], vectors: Vectors, *, ranking: Ranking | None = None) -> None:
        """entries: by service name. ranking: of the same entries, if it has been made."""
        self.entries = entries
        self.vectors = vectors
        self.services = tuple(entries)
        # The place of each service's name among the names.
        self._places = np.argsort(np.argsort(np.array(self.services, dtype=np.str_)))
        self._ranking = ranking or Ranking([entry.words for entry in entries.values()])
        meant = [_meant(entry, vectors) for entry in entries.values()]
        self._known = np.array([each is not None for each in meant], dtype=np.bool_)
        # Those of the tools that have one, a row each.
        self._rows = np.array([each for each in meant if each is not None], dtype=np.float32)

    def with_(self, vectors: Vectors) -> Index:
        """The same tools, with these vectors."""
        return Index(self.entries, vectors, ranking=self._ranking)

    def rank(self, query: str, among: Flags, meaning: Vector | None) -> list[tuple[str, float]]:
        """Service names and scores, above 0 to 1, of the tools that take part and bear on the query, best first.

        Equal scores are in order of names.

        meaning: the query's vector, by the model that made the index's; None to go by words alone.
        """
        asked = list(dict.fromkeys(tokens(query)))
        scores = shares = self._ranking.shares(asked, among)
        if meaning is not None and len(self._rows):
            nearness = np.zeros_like(shares)
            # Row by row: how a product of matrices is rounded hangs on how many rows there are, unseen ones too.
            nearness[self._known & among] = np.vecdot(self._rows, meaning)[among[self._known]]
            # What points away is no farther than what has nothing to do with it: words alone decide.
            scores = (np.maximum(nearness, 0) + _WORDS * shares) / (1 + _WORDS)
            scores[(shares == 0) & (nearness < _NEAR)] = 0
        order: NDArray[np.intp] = np.lexsort((self._places, -scores))
        best: list[int] = order[: np.count_nonzero(scores > 0)].tolist()
        return list(zip((self.services[at] for at in best), scores[best].tolist(), strict=True))

    def lacks(self, among: Flags) -> bool:
        """Whether a tool that takes part has no vector."""
        return bool((among & ~self._known).any())


def missing(entries: Iterable[Entry], vectors: Vectors) -> dict[bytes, str]:
    """Meanings that have no vector, by their keys."""
    return {key: text for entry in entries for key, text in entry.meanings.items() if key not in vectors.known}


def _meant(entry: Entry, vectors: Vectors) -> Vector | None:
    """The mean of the vectors of what a tool is for; None while one is missing.

    A question is often near to one sentence alone: the mean keeps it, where a model dilutes it in the whole.
    """
    several = [vectors.known[key] for key in entry.meanings if key in vectors.known]
    return np.array(several).mean(axis=0) if len(several) == len(entry.meanings) else None
