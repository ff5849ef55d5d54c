"""Whole numbers as text: what matches those between two bounds. For 64 bits, which JSON writes as strings."""

from __future__ import annotations

__all__ = ["between"]

from collections.abc import Iterator


def between(low: int, high: int) -> str:
    """A regular expression of the decimals from low to high, both included, without needless zeros.

    low must not be above high.
    """
    found: list[str] = []
    if low < 0:
        below = "|".join(_positive(max(1, -high), -low))
        found.append(f"-({below})" if "|" in below else f"-{below}")
    if low <= 0 <= high:
        found.append("0")
    if high > 0:
        found += _positive(max(1, low), high)
    return f"({'|'.join(found)})"


def _positive(low: int, high: int) -> Iterator[str]:
    """Expressions of the numbers from low, at least 1, to high: first the odd ends, then what is whole between."""
    first, last = str(low), str(high)
    if len(first) == len(last) and not _whole(first, last):
        yield from _same_length(first, last)
        return
    shortest, longest = len(first), len(last)
    if not _whole(first, "9" * shortest):
        yield from _same_length(first, "9" * shortest)
        shortest += 1
    if not _whole("1" + "0" * (longest - 1), last):
        longest -= 1
    if shortest <= longest:
        yield f"[1-9]{_any(shortest - 1, longest - 1)}"
    if longest < len(last):
        yield from _same_length("1" + "0" * (len(last) - 1), last)


def _whole(first: str, last: str) -> bool:
    """Whether these are all numbers of their length."""
    return first == "1" + "0" * (len(first) - 1) and last == "9" * len(first)


def _same_length(first: str, last: str) -> Iterator[str]:
    """Expressions of the numbers from first to last, zeros in front allowed."""
    if first == last:
        yield first
        return
    rest = len(first) - 1
    if first[0] == last[0]:
        yield from (first[0] + more for more in _same_length(first[1:], last[1:]))
        return
    lowest, highest = int(first[0]), int(last[0])
    if first[1:] != "0" * rest:
        yield from (first[0] + more for more in _same_length(first[1:], "9" * rest))
        lowest += 1
    if last[1:] != "9" * rest:
        highest -= 1
    if lowest <= highest:
        yield (str(lowest) if lowest == highest else f"[{lowest}-{highest}]") + _any(rest, rest)
    if highest < int(last[0]):
        yield from (last[0] + more for more in _same_length("0" * rest, last[1:]))


def _any(least: int, most: int) -> str:
    """So many digits."""
    if most == 0:
        return ""
    if least == most:
        return "[0-9]" if most == 1 else f"[0-9]{{{most}}}"
    return f"[0-9]{{{least},{most}}}"
