"""The index: which passages bear on a query, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .passages import Passage
from .ranking import Ranking
from .words import exact_name, words

__all__ = ["ATTRIBUTES", "Hit", "Index", "rank"]

ATTRIBUTES = ("kind", "module")
# A name counts as words of its passage this often: people look for names more than for what is said of them.
_NAME_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that bears on a query; score: above 0, at most 1."""

    passage: Passage
    score: float


class Index:
    """An immutable index of passages; safe to search from several threads."""

    def __init__(self, passages: Sequence[Passage], ranking: Ranking, *, digest: str) -> None:
        """ranking: of passages, in their order. digest: sha256 in hex of what the index answers from."""
        self.passages = tuple(passages)
        self.ranking = ranking
        self.digest = digest
        self._values: dict[str, NDArray[np.str_]] = {
            "kind": np.array([passage.kind for passage in passages]),
            "module": np.array([passage.module for passage in passages]),
        }

    def search(self, query: str, *, limit: int, filters: Sequence[tuple[str, Sequence[str]]]) -> list[Hit]:
        """The limit passages that bear on query best, best first; equal ones in the index's order.

        filters: pairs of an attribute and the values that pass; a passage must pass each.
        """
        asked = self._asked(query)
        if not asked:
            return []
        shares = self.ranking.shares(asked)
        for attribute, values in filters:
            shares = np.where(np.isin(self._values[attribute], list(filter(None, values))), shares, 0)
        best: list[int] = np.argsort(-shares, kind="stable")[:limit].tolist()
        return [Hit(self.passages[at], min(float(shares[at]), 1.0)) for at in best if shares[at] > 0]

    def _asked(self, query: str) -> list[str]:
        """The different words of query, and the name that it is, if it is one."""
        asked = dict.fromkeys(words(query))
        if (name := exact_name(query)) in self.ranking:
            asked[name] = None
        return list(asked)


def rank(passages: Sequence[Passage]) -> Ranking:
    """Rank passages, at least one, by their names and texts; takes about a second for ten thousand."""
    return Ranking.build([_passage_words(passage) for passage in passages])


def _passage_words(passage: Passage) -> list[str]:
    return [exact_name(passage.name), *words(passage.name) * _NAME_WEIGHT, *words(passage.text)]
