"""What to mend in a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from text.sentences import split
from text.words import find_words

__all__ = ["Kind", "Note", "find_notes"]

_MANY_WORDS = 30
# Not the space that a line begins with: that is how code and lists are set.
_EXTRA_SPACE = re.compile(r"(?<=\S)(?:[^\S\r\n]{2,}(?=\S)|[^\S\r\n]+(?=[\r\n]|\Z))")


class Kind(Enum):
    """What can be wrong; the value is what to do about it."""

    REPEATED_WORD = "remove the word that stands twice, unless it is meant"
    LONG_SENTENCE = "make two sentences of it: it has more than 30 words"
    EXTRA_SPACE = "remove the extra white space"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to mend, and where, in code points from 0; end is one past it."""

    kind: Kind
    start: int
    end: int


def find_notes(line: str) -> list[Note]:
    """What to mend in a line, in its order."""
    notes = [*_repeated_words(line), *_long_sentences(line), *_extra_spaces(line)]
    return sorted(notes, key=lambda note: (note.start, note.end))


def _repeated_words(line: str) -> Iterator[Note]:
    """The second of two same words with white space alone between them."""
    before = None
    for word in find_words(line):
        if (
            before
            and word[0][0].isalpha()
            and word[0].casefold() == before[0].casefold()
            and line[before.end() : word.start()].isspace()
        ):
            yield Note(Kind.REPEATED_WORD, word.start(), word.end())
        before = word


def _long_sentences(line: str) -> Iterator[Note]:
    for sentence in split(line):
        if sum(1 for _ in find_words(sentence.text)) > _MANY_WORDS:
            yield Note(Kind.LONG_SENTENCE, sentence.start, sentence.end)


def _extra_spaces(line: str) -> Iterator[Note]:
    for space in _EXTRA_SPACE.finditer(line):
        yield Note(Kind.EXTRA_SPACE, space.start(), space.end())
