"""Text as the words that tools are found by."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["humps", "tokens"]

_WORD = re.compile(r"[^\W_]+")
_MIN_PLURAL = 4


def tokens(text: str) -> Iterator[str]:
    """The words of a text, folded: `acme.DocSearches` gives acme, doc, search, docsearch.

    Split at whatever is no letter or digit and at the humps of camel case; a
    camel-cased name also counts whole.
    """
    for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
        parts = list(humps(word))
        for part in parts:
            yield _singular(part.casefold())
        if len(parts) > 1:
            yield _singular(word.casefold())


def humps(word: str) -> Iterator[str]:
    """The parts of a camel-cased word: `HTTPServer2` is HTTP, Server, 2."""
    start = 0
    for here in range(1, len(word)):
        last, this, following = word[here - 1], word[here], word[here + 1 : here + 2]
        rises = this.isupper() and (not last.isupper() or following.islower())
        if rises or last.isdigit() != this.isdigit():
            yield word[start:here]
            start = here
    yield word[start:]


def _singular(word: str) -> str:
    if len(word) < _MIN_PLURAL or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]
