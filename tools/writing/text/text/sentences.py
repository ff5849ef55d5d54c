"""Where sentences begin and end.

The rules follow Unicode Standard Annex 29, section 5 (sentence boundaries),
with what prose needs beyond it: abbreviations, initials, numbered lists and
blank lines. A boundary depends on a bounded stretch of text, so text may come
in pieces, and where the pieces are cut makes no difference:

    pieces -> Splitter.feed -> sentences, each as soon as it is certain

INVARIANT: every character that is not white space is in exactly one sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAX_SENTENCE", "Sentence", "Splitter", "split"]

# What holds more characters is sent in parts, so that text without an end to
# its sentence takes no more memory than this.
MAX_SENTENCE = 10_000
# How far past a full stop to look for the next word.
_LOOKAHEAD = 8
# The longest cluster of marks that a part is never cut inside of.
_CLUSTER = 32
_JOINER = "\u200d"

# These end a sentence whatever follows; scripts with them may put no space after.
_WIDE = "。！？｡．؟۔।॥።։។။"  # noqa: RUF001
# These need white space, or the end, behind them.
_NARROW = ".!?…‼⁇⁈⁉"
_CLOSERS = "\"'”’»›)]}」』）】》〉］｝"  # noqa: RUF001
_CANDIDATE = re.compile(
    rf"(?P<stop>[{re.escape(_WIDE + _NARROW)}]+)(?P<closers>[{re.escape(_CLOSERS)}]*)"
    r"|(?P<blank>\n[^\S\n]{0,80}\n|\u2029)"
)
# The start of a blank line that may go on in the next piece.
_BLANK_BEGUN = re.compile(r"\n[^\S\n]{0,80}\Z")
# Titles and the like: a full stop after one ends nothing.
_ABBREVIATED = (
    "approx bzw ca capt cf col d.h dept dr e.g eg fig gen i.e ie jr lt mr mrs ms messrs "
    "p pp prof rev sen sgt st vgl viz vol vs z.b"
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_LAST_TOKEN = re.compile(r"[^\W\d_](?:[^\W\d_.]|\.(?=[^\W\d_])){0,11}\Z")
_LIST_NUMBER = re.compile(r"\W{0,4}\d{1,4}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence word for word, and where it stands, in code points from 0; end is one past it."""

    text: str
    start: int
    end: int


def split(text: str) -> list[Sentence]:
    """The sentences of a text, in order, without white space around them."""
    splitter = Splitter()
    return [*splitter.feed(text), *splitter.finish()]


class Splitter:
    """Takes a text in pieces and gives its sentences; holds at most one sentence and one piece."""

    def __init__(self, *, max_sentence: int = MAX_SENTENCE) -> None:
        self._max = max_sentence
        self._text = ""
        self._offset = 0  # of _text[0] in the whole
        self._start = 0  # of the sentence begun, in _text
        self._seen = 0  # no boundary lies between _start and here

    def feed(self, piece: str) -> list[Sentence]:
        """The sentences that are certain now that the piece has come."""
        self._text += piece
        return self._drain(final=False)

    def finish(self) -> list[Sentence]:
        """What is left; the text has ended."""
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> list[Sentence]:
        found = list(self._sentences(final=final))
        self._text = self._text[self._start :]
        self._offset += self._start
        self._seen -= self._start
        self._start = 0
        return found

    def _sentences(self, *, final: bool) -> Iterator[Sentence]:
        while self._skip_space():
            end = self._next_end(final=final)
            if end is None:
                return
            sentence = self._text[self._start : end].rstrip()
            first = self._offset + self._start
            yield Sentence(sentence, first, first + len(sentence))
            self._start = self._seen = end

    def _skip_space(self) -> bool:
        """Move to the next sentence's first character; False if there is none yet."""
        text, start = self._text, self._start
        while start < len(text) and text[start].isspace():
            start += 1
        self._start, self._seen = start, max(self._seen, start)
        return start < len(text)

    def _next_end(self, *, final: bool) -> int | None:
        """Where the sentence begun ends; None if that takes more text to know."""
        limit = self._start + self._max
        for match in _CANDIDATE.finditer(self._text, self._seen, limit + 1):
            if match.end() > limit:
                return self._cut(limit)
            if not final and not self._is_certain(match):
                self._seen = match.start()
                return None
            if self._is_boundary(match):
                return match.end()
            self._seen = match.end()
        if len(self._text) > limit:
            return self._cut(limit)
        if final:
            return len(self._text)
        begun = _BLANK_BEGUN.search(self._text, max(self._seen, len(self._text) - 82))
        self._seen = begun.start() if begun else len(self._text)
        return None

    def _is_certain(self, match: re.Match[str]) -> bool:
        """Whether more text cannot change what the candidate is."""
        if match["blank"]:
            return True
        after = self._text[match.end() : match.end() + _LOOKAHEAD]
        return len(after) == _LOOKAHEAD or bool(after.strip())

    def _is_boundary(self, match: re.Match[str]) -> bool:
        if match["blank"]:
            return True
        stop = match["stop"]
        after = self._text[match.end() : match.end() + _LOOKAHEAD]
        if stop[-1] in _WIDE:
            # A full-width full stop is a decimal point too.
            return not (stop == "．" and after[:1].isdigit())  # noqa: RUF001
        if after and not after[0].isspace():
            return False
        if after.lstrip()[:1].islower() and (stop[-1] in ".…" or match["closers"]):
            return False
        return not (stop == "." and self._is_abbreviated(match.start()))

    def _is_abbreviated(self, stop: int) -> bool:
        """Whether what stands before a full stop asks for one: "Dr", "J", or a list's "1"."""
        if self._is_list_number(stop):
            return True
        before = self._text[max(self._start, stop - 16) : stop]
        token = _LAST_TOKEN.search(before)
        if token is None or (token.start() and before[token.start() - 1].isalnum()):
            return False
        word = token[0]
        return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I")

    def _is_list_number(self, stop: int) -> bool:
        """Whether nothing but a number stands before it on its line."""
        near = max(self._start, stop - 9)
        line = self._text.rfind("\n", near, stop) + 1 or near
        begins = line > near or near == self._start
        return begins and _LIST_NUMBER.fullmatch(self._text, line, stop) is not None

    def _cut(self, limit: int) -> int:
        """Where to part a sentence that is too long: at white space, else between clusters."""
        for at in range(limit, max(self._start, limit - self._max // 2), -1):
            if self._text[at].isspace():
                return at
        for at in range(limit, max(self._start, limit - _CLUSTER), -1):
            if not self._joins(at):
                return at
        return limit

    def _joins(self, at: int) -> bool:
        """Whether the character belongs to the one before it."""
        here = self._text[at]
        return (
            here == _JOINER
            or self._text[at - 1] == _JOINER
            or unicodedata.category(here).startswith("M")
            or "\U0001f3fb" <= here <= "\U0001f3ff"
        )
