"""BM25 over lists of words, as a share between 0 and 1.

By bm25s: it computes each word's scores when the index is built, so a query adds up a few
columns, and it saves what it built. rank-bm25, the other library, does neither and has had no
release since 2022. The variant is Lucene's, whose word scores have an upper bound.

Much like that of the handbook search, on purpose: the tools are independent products.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# bm25s is annotated in part and has no py.typed; what is read of it is cast below.

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import bm25s
import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking", "Shares"]

# bm25s asks for its own debug lines when it is imported.
logging.getLogger("bm25s").setLevel(logging.WARNING)

Shares = NDArray[np.float32]
# Chosen by the queries in tests/test_quality.py, near the usual values (1.2 to 2, 0.75): names and
# summaries are short and say as much as long texts do, so length weighs less.
_K1, _B = 1.5, 0.4


class Ranking:
    """The ranks of a sequence of documents, each a list of words; immutable, safe in several threads."""

    def __init__(self, built: bm25s.BM25) -> None:
        """Take an index that bm25s built or loaded."""
        self._bm25 = built
        self._vocabulary = cast("dict[str, int]", built.vocab_dict)
        # Where each word's column of scores starts, and where the last ends: one score per document that has the word.
        self._starts = cast("NDArray[np.int32]", built.scores["indptr"])
        self._count = int(cast("int", built.scores["num_docs"]))

    @classmethod
    def build(cls, documents: Sequence[list[str]]) -> "Ranking":
        """Rank documents, at least one of which has a word."""
        built = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        built.index(documents, show_progress=False)
        return cls(built)

    @classmethod
    def load(cls, folder: Path) -> "Ranking":
        """What save wrote to folder."""
        return cls(bm25s.BM25.load(folder, show_progress=False))

    def save(self, folder: Path) -> None:
        """Write the ranking to folder, which is made."""
        self._bm25.save(folder, show_progress=False)

    def __contains__(self, word: str) -> bool:
        """Whether a document has the word."""
        return word in self._vocabulary

    def shares(self, asked: Sequence[str]) -> Shares:
        """How much of what is asked each document answers, 0 to 1; asked: different words, at least one.

        A document's BM25 score over the bound that the words set: the sum of their inverse document
        frequencies. Words that no document has count as the rarest, so a query that is mostly
        unknown scores low.
        """
        scores = cast("Shares", self._bm25.get_scores(list(asked)))
        return scores / np.float32(sum(map(self._bound, asked)))

    def _bound(self, word: str) -> float:
        """The most that the word can add to a score: Lucene's inverse document frequency."""
        at = self._vocabulary.get(word)
        found = 0 if at is None else int(self._starts[at + 1] - self._starts[at])
        return math.log(1 + (self._count - found + 0.5) / (found + 0.5))
