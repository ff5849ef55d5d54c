"""Which sentences of a text carry most of it.

Extractive, after SumBasic (Nenkova and Vanderwende, 2005): a sentence is worth
the mean frequency of its words in the text. Nothing is written anew, so
nothing can be made up.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from text.sentences import Sentence, split
from text.words import find_words

__all__ = ["Summary", "summarise"]

# A sentence of fewer words says too little to stand for a text.
_FEW_WORDS = 4
# After these Chinese and Japanese put no space.
_UNSPACED = tuple("。！？｡．」』）")  # noqa: RUF001
_COMMON = (
    "a about after all also an and any are as at be been but by can could did do does for from had has have he her "
    "his how i if in into is it its just may more most no not of on one only or other our out over she should so some "
    "such than that the their them then there these they this those to up very was we were what when which who will "
    "with would you your"
)
_STOP_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Summary:
    """The sentences chosen, in the text's order, and the summary they make."""

    text: str
    sentences: tuple[Sentence, ...]


def summarise(text: str, *, max_sentences: int) -> Summary:
    """At most max_sentences sentences of a text; a text of fewer is kept whole, one without any is empty."""
    sentences = split(text)
    chosen = sentences if len(sentences) <= max_sentences else _choose(sentences, max_sentences)
    return Summary(_join(chosen), tuple(chosen))


def _choose(sentences: Sequence[Sentence], count: int) -> list[Sentence]:
    """The count sentences worth most, none twice; of equals, the earlier."""
    terms = [_terms(sentence) for sentence in sentences]
    frequency = Counter(term for words in terms for term in words)
    worth: dict[tuple[str, ...], tuple[float, int]] = {}
    for index, words in enumerate(terms):
        if words not in worth:
            worth[words] = (_worth(words, frequency), -index)
    best = heapq.nlargest(count, worth.values())
    return [sentences[index] for index in sorted(-negative for _, negative in best)]


def _terms(sentence: Sentence) -> tuple[str, ...]:
    words = (word[0].casefold() for word in find_words(sentence.text))
    return tuple(word for word in words if word not in _STOP_WORDS)


def _worth(words: tuple[str, ...], frequency: Counter[str]) -> float:
    if not words:
        return 0.0
    return sum(frequency[word] for word in words) / max(len(words), _FEW_WORDS)


def _join(sentences: Sequence[Sentence]) -> str:
    """The sentences as one text; a space between them where their script has one."""
    parts: list[str] = []
    for sentence in sentences:
        if parts and not parts[-1].endswith(_UNSPACED):
            parts.append(" ")
        parts.append(sentence.text)
    return "".join(parts)
