"""The control tokens of a model, kept out of what is only said to it.

A model's template marks turns by tokens such as `<|user|>`, and the text of a
whole conversation is made into tokens at once: a document that spells one of
them out would speak as somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import count, groupby

__all__ = ["ControlTokens"]


class ControlTokens:
    """Texts that mean something else to a model than what they say."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """tokens: of which those of one character, and of spaces alone, say no more than they are, and may stay."""
        apart = sorted({each for each in tokens if len(each) > 1 and not each.isspace()})
        letters = frozenset("".join(apart))
        # INVARIANT: what parts a token is in none, so that none comes of it; where no token has a space, a space.
        self._parted = rf"\g<0>{next(each for each in map(chr, count(ord(' '))) if each not in letters)}"
        firsts = (rf"{re.escape(first)}(?={_begins(rest)})" for first, rest in _by_first(apart))
        self._begins = re.compile("|".join(firsts)) if apart else None

    def part(self, text: str) -> str:
        """The text with each token in it parted after its first character; one that has none, as it is."""
        return text if self._begins is None else self._begins.sub(self._parted, text)


def _begins(ends: Collection[str]) -> str:
    """A pattern for what begins with any of these, that reads no character twice however many they are."""
    if "" in ends:
        return ""
    ways = [re.escape(first) + _begins(rest) for first, rest in _by_first(ends)]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


def _by_first(texts: Collection[str]) -> list[tuple[str, list[str]]]:
    """Sorted texts by their first character, without it."""
    return [(first, [each[1:] for each in found]) for first, found in groupby(texts, lambda text: text[0])]
