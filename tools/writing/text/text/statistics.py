"""What is counted in a text, and what follows from the counts.

Counts add up: those of a text are the sum of those of its sentences, plus its
length. So a text of any length is measured in the memory of one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from text.sentences import Sentence, Splitter
from text.words import find_words

__all__ = ["Counter", "Counts", "count_sentences", "measure"]

# Brysbaert, "How many words do we read per minute?", Journal of Memory and
# Language 109 (2019): the mean of silent reading of English non-fiction.
_WORDS_PER_MINUTE = 238
# Björnsson, "Läsbarhet" (1968): words of more than this many letters are long.
_SHORT_WORD = 6


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted in a text."""

    characters: int = 0
    words: int = 0
    sentences: int = 0
    long_words: int = 0

    def __add__(self, other: Counts) -> Counts:
        """The counts of both texts."""
        return Counts(
            self.characters + other.characters,
            self.words + other.words,
            self.sentences + other.sentences,
            self.long_words + other.long_words,
        )

    @property
    def reading_ms(self) -> int:
        """How long a silent reader takes, in whole milliseconds."""
        return round(self.words * 60_000 / _WORDS_PER_MINUTE)

    @property
    def readability(self) -> float:
        """LIX: words per sentence plus the percentage of long words; 0 without words."""
        if not self.words:
            return 0.0
        return self.words / self.sentences + 100 * self.long_words / self.words


class Counter:
    """Measures a text that comes in pieces, in the memory of one sentence and one piece."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._counts = Counts()

    def feed(self, piece: str) -> None:
        """Take the next piece; it may end anywhere."""
        self._counts += Counts(characters=len(piece)) + count_sentences(self._splitter.feed(piece))

    def finish(self) -> Counts:
        """The counts of all pieces as one text."""
        return self._counts + count_sentences(self._splitter.finish())


def measure(text: str) -> Counts:
    """The counts of a text."""
    counter = Counter()
    counter.feed(text)
    return counter.finish()


def count_sentences(sentences: Iterable[Sentence]) -> Counts:
    """The sentences' counts, without characters."""
    total = words = long_words = 0
    for sentence in sentences:
        total += 1
        for word in find_words(sentence.text):
            words += 1
            long_words += word.end() - word.start() > _SHORT_WORD
    return Counts(words=words, sentences=total, long_words=long_words)
