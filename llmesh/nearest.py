"""What somebody may have meant who named what is not there: words to follow that, empty where nothing is near."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

__all__ = ["nearest_name", "nearest_tool", "nearest_type", "nearest_value"]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Of names that are told apart by any of their letters."""
    return _words(difflib.get_close_matches(name, known, n=1))


def nearest_tool(service: str, method: str, known: Collection[str]) -> str:
    """Of a method's tool. known: services."""
    whole = f"{service}.{method}"
    if whole in known:
        return f": `{whole}` is the tool, name a method of it too, as in {whole}/METHOD"
    by_end = sorted(each for each in known if each.endswith(f".{service}"))
    return _words(by_end) or nearest_name(service, known)


def nearest_type(name: str, known: Collection[str]) -> str:
    """Of types. known: full names."""
    by_end = {each.rpartition(".")[2].casefold(): each for each in sorted(known)}
    found = difflib.get_close_matches(name.rpartition(".")[2].casefold(), by_end, n=1)
    return _words([by_end[each] for each in found])


def nearest_value(name: str, known: Collection[str]) -> str:
    """Of an enum's values, which begin with the enum's name; people leave that out."""
    by_end = sorted(each for each in known if each.endswith(f"_{name.upper()}"))
    return _words(by_end) or nearest_name(name.upper(), known)


def _words(found: Sequence[str]) -> str:
    return f" (nearest: `{found[0]}`)" if found else ""
