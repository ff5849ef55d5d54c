"""Regular expressions of contracts, cut down to what a decoder can be held to.

protovalidate takes RE2 and looks for a match anywhere in a text; a schema's
decoder works on the raw JSON, and wants an end. So an expression is read, and
written again as one that matches whole texts only, of bounded length, and no
character that JSON would escape. All that it matches, the contract's matches too.
"""

from __future__ import annotations

__all__ = ["ANY", "ASCII", "PATTERN_MAX_CHARS", "Bounded", "bounded", "repeated"]

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

# Code points, first and last of each range, in order.
Ranges = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
DELETE = 0x7F
# Behind the control characters that follow it.
CONTROLS_END = 0xA0
# What stands in JSON as it is: no quote, backslash, control character, nor half of a surrogate pair.
ANY: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, LAST))
ASCII: Ranges = ANY[:3]

PATTERN_MAX_CHARS = 1000
# Of what an expression demands, where the contract has no maximum.
TEXT_MAX_CHARS = 4096
GROUPS_MAX_DEPTH = 20
UNBOUNDED = 1 << 30
# More repeats at once take a decoder long to get ready for; more than 128 it takes for any number (xgrammar 0.2.8).
REPEATS_MAX = 64
BLOCK = 32
# Bytes of a character in UTF-8, at most.
WIDEST = 4

CLASSES: dict[str, Ranges] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)),
}
CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "a": 0x07}
NOT_NEWLINE: Ranges = ((0, 0x09), (0x0B, LAST))


class _Unsafe(Exception):  # noqa: N818 never leaves this module
    """The expression says what can't be held to."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """An expression without anchors, of whole texts. max_bytes: of the longest, in UTF-8."""

    text: str
    max_bytes: int


def bounded(pattern: str, *, low: int, high: int, most: int | None, allowed: Ranges) -> Bounded | None:
    """The expression for texts of low to high characters, all of them allowed ones.

    What can't be cut down to so few may be as long as it must, up to most: the contract's own maximum, None if it has
    none. None if the expression can't be held to: it looks around, names classes of Unicode, is too long, or nothing
    of the length matches.
    """
    if len(pattern) > PATTERN_MAX_CHARS:
        return None
    try:
        tree = _Reader(pattern, allowed).whole()
    except _Unsafe:
        return None
    floor = bisect.bisect_left(range(low), low, key=lambda floor: tree.width(floor, floor)[0])
    # At the floor nothing is longer than it must be.
    least, needed = tree.width(floor, floor)
    if needed > high and needed <= (TEXT_MAX_CHARS if most is None else most):
        high = needed
    if not low <= least <= needed <= high:
        return None
    # The largest cap under which nothing is too long.
    cap = floor + bisect.bisect_right(range(floor, high + 1), high, key=lambda cap: tree.width(floor, cap)[1]) - 1
    widest = 1 if tree.last() <= DELETE else WIDEST
    return Bounded(tree.text(floor, cap), tree.width(floor, cap)[1] * widest)


def repeated(part: str, least: int, most: int) -> str:
    """An expression, so many times: in blocks where that is often.

    What a repeat costs a decoder grows by its square, and by the ways in which a text can be shared out among several.
    So there are whole blocks first, and then a rest that may have any length from none to the next block.
    """
    pieces: list[str] = []
    if least > REPEATS_MAX:
        pieces.append(_blocks(part, least // BLOCK, least // BLOCK))
        least, most = least % BLOCK, most - least + least % BLOCK
    spare = most - least - BLOCK + 1
    if most > REPEATS_MAX and spare >= BLOCK:
        pieces.append(_blocks(part, 0, spare // BLOCK))
        most -= spare // BLOCK * BLOCK
    if most or not pieces:
        pieces.append(_some(part, least, most))
    return "".join(pieces)


def _blocks(part: str, least: int, most: int) -> str:
    return _some(f"({_some(part, BLOCK, BLOCK)})", least, most)


def _some(part: str, least: int, most: int) -> str:
    # Never `?`: of a group that ends with a repeat, a decoder then takes the repeat alone (xgrammar 0.2.8).
    return f"{part}{{{most}}}" if least == most else f"{part}{{{least},{most}}}"


class _Node:
    """A part of an expression. floor and cap bound how often what repeats does, where it may."""

    def width(self, floor: int, cap: int) -> tuple[int, int]:
        """Characters of the shortest and the longest match."""
        raise NotImplementedError

    def text(self, floor: int, cap: int) -> str:
        """The part, written."""
        raise NotImplementedError

    def last(self) -> int:
        """The highest code point in it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Char(_Node):
    ranges: Ranges

    def width(self, floor: int, cap: int) -> tuple[int, int]:
        return 1, 1

    def text(self, floor: int, cap: int) -> str:
        if self.ranges[0][0] == self.ranges[-1][1]:
            return _escaped(self.ranges[0][0], "^$\\.*+?()[]{}|")
        # Never what it is not: of bytes that are no text, a decoder then takes some for characters (xgrammar 0.2.8).
        return f"[{_ranges(self.ranges)}]"

    def last(self) -> int:
        return self.ranges[-1][1]


@dataclass(frozen=True, slots=True)
class _Sequence(_Node):
    parts: tuple[_Node, ...]

    def width(self, floor: int, cap: int) -> tuple[int, int]:
        widths = [part.width(floor, cap) for part in self.parts]
        return sum(least for least, _ in widths), sum(most for _, most in widths)

    def text(self, floor: int, cap: int) -> str:
        return "".join(part.text(floor, cap) for part in self.parts)

    def last(self) -> int:
        return max((part.last() for part in self.parts), default=0)


@dataclass(frozen=True, slots=True)
class _Choice(_Node):
    options: tuple[_Node, ...]

    def width(self, floor: int, cap: int) -> tuple[int, int]:
        widths = [option.width(floor, cap) for option in self.options]
        return min(least for least, _ in widths), max(most for _, most in widths)

    def text(self, floor: int, cap: int) -> str:
        return f"({'|'.join(option.text(floor, cap) for option in self.options)})"

    def last(self) -> int:
        return max(option.last() for option in self.options)


@dataclass(frozen=True, slots=True)
class _Repeat(_Node):
    """A part, from least to most times."""

    part: _Node
    least: int
    most: int

    def times(self, floor: int, cap: int) -> tuple[int, int]:
        least = min(self.most, max(self.least, floor))
        return least, max(least, min(self.most, cap))

    def width(self, floor: int, cap: int) -> tuple[int, int]:
        least, most = self.times(floor, cap)
        shortest, longest = self.part.width(floor, cap)
        return least * shortest, most * longest

    def text(self, floor: int, cap: int) -> str:
        inner = self.part.text(floor, cap)
        if isinstance(self.part, _Sequence | _Repeat):
            inner = f"({inner})"
        return repeated(inner, *self.times(floor, cap))

    def last(self) -> int:
        return self.part.last()


class _Reader:
    """Reads one expression; raises _Unsafe at what it doesn't know."""

    def __init__(self, pattern: str, allowed: Ranges) -> None:
        self._pattern = pattern
        self._allowed = allowed
        self._at = 0

    def whole(self) -> _Node:
        """The expression as one of whole texts: where an end isn't anchored, anything may stand before or after."""
        options = [self._anchored()]
        while self._take("|"):
            options.append(self._anchored())
        if self._at < len(self._pattern):
            raise _Unsafe
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _anchored(self) -> _Node:
        anything = _Repeat(self._char(NOT_NEWLINE), 0, UNBOUNDED)
        begun = self._take("^") or self._take("\\A")
        parts = self._parts(0)
        ended = self._take("$") or self._take("\\z")
        before = () if begun or parts[:1] == (anything,) else (anything,)
        after = () if ended or parts[-1:] == (anything,) else (anything,)
        return _Sequence((*before, *parts, *after))

    def _parts(self, depth: int) -> tuple[_Node, ...]:
        parts: list[_Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)$" and not self._ahead("\\z"):
            parts.append(self._repeated(self._atom(depth)))
        return tuple(parts)

    def _atom(self, depth: int) -> _Node:
        one = self._next()
        if one == "(":
            return self._group(depth + 1)
        if one == "[":
            return self._class()
        if one == ".":
            return self._char(NOT_NEWLINE)
        if one == "\\":
            return self._char(self._escape())
        if one in "*+?{^":
            raise _Unsafe
        return self._char(((ord(one), ord(one)),))

    def _group(self, depth: int) -> _Node:
        if depth > GROUPS_MAX_DEPTH:
            raise _Unsafe
        if self._take("?") and not self._take(":"):
            raise _Unsafe
        options = [_Sequence(self._parts(depth))]
        while self._take("|"):
            options.append(_Sequence(self._parts(depth)))
        if not self._take(")"):
            raise _Unsafe
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _repeated(self, part: _Node) -> _Node:
        if self._take("*"):
            times = (0, UNBOUNDED)
        elif self._take("+"):
            times = (1, UNBOUNDED)
        elif self._take("?"):
            times = (0, 1)
        elif self._take("{"):
            times = self._times()
        else:
            return part
        # Lazy or not, the same texts match.
        self._take("?")
        if self._at < len(self._pattern) and self._pattern[self._at] in "*+?{":
            raise _Unsafe
        return _Repeat(part, *times)

    def _times(self) -> tuple[int, int]:
        inner, brace, _ = self._pattern[self._at :].partition("}")
        least, comma, most = inner.partition(",")
        if not (brace and _is_number(least) and (_is_number(most) or not most)):
            raise _Unsafe
        self._at += len(inner) + 1
        times = int(least), (int(most) if most else UNBOUNDED) if comma else int(least)
        if times[0] > times[1]:
            raise _Unsafe
        return times

    def _class(self) -> _Node:
        inverted = self._take("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or not self._ahead("]"):
            first = False
            ranges = self._member()
            if self._ahead("-") and not self._ahead("-]"):
                self._next()
                ranges = _span(ranges, self._member())
            found += ranges
        self._next()
        return self._char(_without(((0, LAST),), found) if inverted else tuple(found))

    def _member(self) -> Ranges:
        one = self._next()
        if one == "\\":
            return self._escape()
        if one == "[" and self._ahead(":"):
            raise _Unsafe
        return ((ord(one), ord(one)),)

    def _escape(self) -> Ranges:
        one = self._next()
        if one in CLASSES:
            return CLASSES[one]
        if one.lower() in CLASSES:
            return _without(((0, LAST),), CLASSES[one.lower()])
        if one == "x" and self._at + 2 <= len(self._pattern):
            point = self._next() + self._next()
            if not all(digit in "0123456789abcdefABCDEF" for digit in point):
                raise _Unsafe
            return ((int(point, 16), int(point, 16)),)
        if one in CONTROLS:
            return ((CONTROLS[one], CONTROLS[one]),)
        if one.isalnum() or not one.isascii():
            raise _Unsafe
        return ((ord(one), ord(one)),)

    def _char(self, ranges: Ranges) -> _Char:
        """Those of the characters that are allowed."""
        kept = _without(((0, LAST),), _without(((0, LAST),), ranges) + _without(((0, LAST),), self._allowed))
        if not kept:
            raise _Unsafe
        return _Char(kept)

    def _ahead(self, text: str) -> bool:
        return self._pattern.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        if not self._ahead(text):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise _Unsafe
        self._at += 1
        return self._pattern[self._at - 1]


def _is_number(text: str) -> bool:
    # RE2 repeats nothing more than 1,000 times.
    return text.isascii() and text.isdigit() and len(text) <= len("1000")


def _span(first: Ranges, last: Ranges) -> Ranges:
    """The range from one character to another."""
    if len(first) != 1 or len(last) != 1:
        raise _Unsafe
    (low, same), (high, alike) = first[0], last[0]
    if low != same or high != alike or low > high:
        raise _Unsafe
    return ((low, high),)


def _without(all_of: Ranges, taken: Iterable[tuple[int, int]]) -> Ranges:
    """The one range but for what is taken from it, in order."""
    ((start, end),) = all_of
    kept: list[tuple[int, int]] = []
    for low, high in sorted(taken):
        if low > start:
            kept.append((start, low - 1))
        start = max(start, high + 1)
    if start <= end:
        kept.append((start, end))
    return tuple(kept)


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return "".join(
        _escaped(low, "^-]\\[") + ("" if low == high else "-" * (high > low + 1) + _escaped(high, "^-]\\["))
        for low, high in ranges
    )


def _escaped(point: int, special: str) -> str:
    if chr(point) in special:
        return f"\\{chr(point)}"
    return f"\\x{point:02x}" if point < ord(" ") or DELETE <= point < CONTROLS_END else chr(point)
