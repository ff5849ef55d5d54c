"""The index: which passages bear on a query, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmesh.retrieval import Asked, Passages, Scores

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
        # What they are found by where meanings are compared.
        self.meant = Passages([_meant(passage) for passage in passages])
        self._values: dict[str, NDArray[np.str_]] = {
            "kind": np.array([passage.kind for passage in passages]),
            "module": np.array([passage.module for passage in passages]),
        }

    def search(
        self, query: str, *, limit: int, filters: Sequence[tuple[str, Sequence[str]]], asked: Asked | None = None
    ) -> list[Hit]:
        """The limit passages that bear on query best, best first; equal ones in the index's order.

        filters: pairs of an attribute and the values that pass; a passage must pass each. asked: what the query
        means; None to go by its words alone.
        """
        passing = np.ones(len(self.passages), dtype=np.bool_)
        for attribute, values in filters:
            passing &= np.isin(self._values[attribute], list(filter(None, values)))
        best = self.meant.best(self._shares(query), passing, asked or Asked(), limit=limit)
        return [Hit(self.passages[at], score) for at, score in best]

    def _shares(self, query: str) -> Scores:
        """How much of the query's words each passage says; of them and of the name that it is, if it is one."""
        asked = dict.fromkeys(words(query))
        if (name := exact_name(query)) in self.ranking:
            asked[name] = None
        return self.ranking.shares(list(asked)) if asked else np.zeros(len(self.passages), dtype=np.float32)


def rank(passages: Sequence[Passage]) -> Ranking:
    """Rank passages, at least one, by their names and texts; takes about a second for ten thousand."""
    return Ranking.build([_passage_words(passage) for passage in passages])


def _passage_words(passage: Passage) -> list[str]:
    return [exact_name(passage.name), *words(passage.name) * _NAME_WEIGHT, *words(passage.text)]


def _meant(passage: Passage) -> str:
    """The passage's text, which begins with its name unless it is the rest of a longer one."""
    return passage.text if passage.text.startswith(passage.name) else f"{passage.name}\n\n{passage.text}"
