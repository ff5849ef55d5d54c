"""The index: which packages bear on a query, and how well. BM25, by bm25s.

Scores are a share between 0 and 1, as those of the other retrieval tools are, so that answers of
several can be merged by score.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# bm25s is annotated in part and has no py.typed; what is read of it is cast below.

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

from llmesh.retrieval import Asked, Passages, Scores

from .packages import Package

__all__ = ["ATTRIBUTES", "Hit", "Index", "words"]

# bm25s asks for its own debug lines when it is imported.
logging.getLogger("bm25s").setLevel(logging.WARNING)

# As filters name them: the field of a package that each reads.
ATTRIBUTES = {"package": "name", "section": "section"}
# How often the words of a name and of a summary count, those of the description being once: descriptions
# share long passages between the packages of one source.
_NAME_WEIGHT, _SUMMARY_WEIGHT = 4, 2
# The usual k1; a package that says more of itself is not worth less, so b is below the usual 0.75.
_K1, _B = 1.5, 0.4
_TOKEN = re.compile(r"[^\W_][\w+.\-]*[\w+]|[^\W_]")
_PART = re.compile(r"[^\W_]+")
_EMPTY = frozenset({*STOPWORDS_EN, "can", "do", "doe", "from", "how", "i", "its", "my", "use", "what", "which", "you"})


@dataclass(frozen=True, slots=True)
class Hit:
    """A package that bears on a query; score: above 0, at most 1."""

    package: Package
    score: float


class Index:
    """An immutable index of packages, none or more; safe to search from several threads."""

    def __init__(self, packages: Sequence[Package]) -> None:
        """Index packages; digest says which they are."""
        self.packages = tuple(packages)
        self.digest = hashlib.sha256(repr(self.packages).encode(errors="replace")).hexdigest()
        documents = [_document(package) for package in packages]
        # In how many packages each word is.
        self._counts = Counter(word for document in documents for word in set(document))
        # What they are found by where meanings are compared.
        self.meant = Passages([f"{package.name}: {package.text}" for package in packages])
        self._bm25 = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        if self._counts:
            self._bm25.index(documents, show_progress=False)

    def search(
        self, query: str, *, limit: int, filters: Sequence[tuple[str, Sequence[str]]], asked: Asked | None = None
    ) -> list[Hit]:
        """The limit packages that bear on query best, best first; equal ones in the index's order.

        filters: pairs of an attribute and the values that pass; a package must pass each. asked: what the query means;
        None to go by its words alone.
        """
        passing = np.ones(len(self.packages), dtype=np.bool_)
        for attribute, values in filters:
            passing &= [getattr(package, ATTRIBUTES[attribute]) in values for package in self.packages]
        best = self.meant.best(self._shares(query), passing, asked or Asked(), limit=limit)
        return [Hit(self.packages[at], score) for at, score in best]

    def _shares(self, query: str) -> Scores:
        """How much of the query's words each package says; of them and of the name that it is, if it is one."""
        asked = list(dict.fromkeys(words(query)))
        if _exact(query) in self._counts:
            asked.append(_exact(query))
        if not asked or not self._counts:
            return np.zeros(len(self.packages), dtype=np.float32)
        return cast("Scores", self._bm25.get_scores(asked)) / np.float32(sum(map(self._bound, asked)))

    def _bound(self, word: str) -> float:
        """The most that the word can add to a score: Lucene's inverse document frequency. An unknown one is rare."""
        found = self._counts[word]
        return math.log(1 + (len(self.packages) - found + 0.5) / (found + 0.5))


def words(text: str) -> list[str]:
    """The words of text in order, lower case, singular; a name whole and by its parts: libssl-dev, libssl, dev."""
    found: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        parts = _PART.findall(token)
        found += [singular for part in parts if (singular := _singular(part)) not in _EMPTY]
        if parts != [token]:
            found.append(token)
    return found


def _exact(name: str) -> str:
    """The word that stands for a package's whole name, so that "dpkg" finds `dpkg` before `dpkg-dev`."""
    return f"={name.strip().lower()}"


def _document(package: Package) -> list[str]:
    return [
        _exact(package.name),
        *words(package.name) * _NAME_WEIGHT,
        *words(package.summary) * _SUMMARY_WEIGHT,
        *words(package.section),
        *words(package.text),
    ]


def _singular(word: str) -> str:
    """The word without an ending that is most often a plural's."""
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and re.search(r"[^aius]s$", word) else word  # noqa: PLR2004  "its", "gas", "bus"
