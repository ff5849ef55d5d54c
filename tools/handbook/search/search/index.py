"""The index: which passages bear on a query, and how well."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmesh.retrieval import Asked, Passages, Scores

from .pages import Passage
from .ranking import Ranking
from .words import words

__all__ = ["ATTRIBUTES", "Hit", "Index"]

ATTRIBUTES = ("file", "heading")
# Words of a passage's own heading count this often, those of the headings above it and of the path once.
_HEADING_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that bears on a query; score: above 0, at most 1."""

    passage: Passage
    score: float


class Index:
    """An immutable index of passages, none or more; safe to search from several threads."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """Index passages; digest says which they are."""
        self.passages = tuple(passages)
        self.digest = hashlib.sha256(repr(self.passages).encode()).hexdigest()
        # What they are found by where meanings are compared.
        self.meant = Passages([_meant(passage) for passage in passages])
        documents = [_passage_words(passage) for passage in passages]
        self._ranking = Ranking.build(documents) if any(documents) else None

    def search(
        self, query: str, *, limit: int, filters: Sequence[tuple[str, Sequence[str]]], asked: Asked | None = None
    ) -> list[Hit]:
        """The limit passages that bear on query best, best first; equal ones in the order of the pages.

        filters: pairs of an attribute and the values that pass; a passage must pass each. asked: what the query means;
        None to go by its words alone.
        """
        passing = np.ones(len(self.passages), dtype=np.bool_)
        for attribute, values in filters:
            passing &= [getattr(passage, attribute) in values for passage in self.passages]
        best = self.meant.best(self._shares(query), passing, asked or Asked(), limit=limit)
        return [Hit(self.passages[at], score) for at, score in best]

    def _shares(self, query: str) -> Scores:
        """How much of the query's words each passage says."""
        asked = list(dict.fromkeys(words(query)))
        if not asked or self._ranking is None:
            return np.zeros(len(self.passages), dtype=np.float32)
        return self._ranking.shares(asked)


def _passage_words(passage: Passage) -> list[str]:
    return [
        *words(passage.heading) * _HEADING_WEIGHT,
        *(word for heading in passage.headings[:-1] for word in words(heading)),
        *words(passage.file),
        *words(passage.text),
    ]


def _meant(passage: Passage) -> str:
    """The passage's text, under its headings."""
    return "\n\n".join((" > ".join(passage.headings) or passage.file, passage.text))
