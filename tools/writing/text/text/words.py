"""What counts as a word.

A word is a run of letters, digits and their marks; an apostrophe, hyphen or
point inside one belongs to it ("don't", "well-known", "3.14"). Chinese and
Japanese put no space between words: each of their characters counts as one,
as word processors do. Emoji and punctuation are no words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["find_words"]

# Han, Hiragana, Katakana and Bopomofo, with the planes of rarer Han.
_CHARACTER = (
    "\u3005-\u3007\u3021-\u3029\u3041-\u3096\u30a1-\u30fa\u3105-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
# \w holds letters, digits and the underscore; \u0300... are marks that \w leaves
# out, and that spell syllables in Arabic, Hebrew, the Indic scripts and Thai.
_MARK = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0903\u093a-\u093c\u093e-\u094f\u0951-\u0957"
    "\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09cd\u0a01-\u0a03\u0a3c-\u0a51\u0a81-\u0a83\u0abc-\u0acd"
    "\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0c00-\u0c04\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6"
    "\u0d00-\u0d03\u0d3b-\u0d4d\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_LETTER = rf"(?:(?![{_CHARACTER}])[^\W_]|[{_MARK}])"
_JOIN = "['’_\u00b7.\\-\u2010\u2011]"  # noqa: RUF001
_WORD = re.compile(rf"[{_CHARACTER}][{_MARK}]*|{_LETTER}+(?:{_JOIN}{_LETTER}+)*")


def find_words(text: str) -> Iterator[re.Match[str]]:
    """The words of a text, in order."""
    return _WORD.finditer(text)
