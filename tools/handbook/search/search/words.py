"""Words of headings and text, the same for passages and queries.

A name in code is found whole and by its parts: `llmesh.serve` gives llmesh, serve and
llmesh.serve. A plural is found by its singular.

Much like that of engineering's documentation search, on purpose: the tools are independent products.
"""

import re

__all__ = ["words"]

TOKEN = re.compile(r"[^\W_](?:[\w.]*\w)?")
# Capitals, a word with or without one, digits: the parts of HTTPServer2 are HTTP, Server and 2.
PART = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")
# Words that say nothing here.
SAYING_NOTHING = """
    a an and are as at be by can do does for from has have how i if in into is it its my of on or
    that the then this to was what when where which who why will with you your
"""
EMPTY = frozenset(SAYING_NOTHING.split())


def words(text: str) -> list[str]:
    """The words of text in order, repeated as they are repeated; lower case."""
    return [word for token in TOKEN.findall(text) for word in _of_token(token)]


def _of_token(token: str) -> list[str]:
    parts = [part.lower() for part in PART.findall(token)]
    found = [_singular(part) for part in parts if part not in EMPTY]
    if len(parts) > 1:
        labels = [label for label in token.split(".") if len(PART.findall(label)) > 1]
        found += [name.lower() for name in dict.fromkeys([token, *labels])]
    return found


def _singular(word: str) -> str:
    """The word without a plural's ending: D. Harman's S stemmer (How effective is suffixing?, 1991)."""
    if len(word) > 3 and word.endswith("ies") and not word.endswith(("aies", "eies")):  # noqa: PLR2004  shorter ones are no plurals
        return f"{word[:-3]}y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("aes", "ees", "oes", "us", "ss")):  # noqa: PLR2004
        return word[:-1]
    return word
