"""What somebody may have meant who named a tool or a type that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["nearest", "nearest_type"]


def nearest(service: str, method: str, known: Collection[str]) -> str:
    """Words to follow "is not on the mesh"; empty where nothing is near. known: services."""
    whole = f"{service}.{method}"
    if whole in known:
        return f": `{whole}` is the tool, name a method of it too, as in {whole}/METHOD"
    found = sorted(each for each in known if each.endswith(f".{service}"))
    found = found or difflib.get_close_matches(service, known, n=1)
    return f" (nearest: `{found[0]}`)" if found else ""


def nearest_type(name: str, known: Collection[str]) -> str:
    """Words to follow the name of a type that there is not; empty where nothing is near. known: full names."""
    by_end = {each.rpartition(".")[2].casefold(): each for each in sorted(known)}
    found = difflib.get_close_matches(name.rpartition(".")[2].casefold(), by_end, n=1)
    return f" (nearest: `{by_end[found[0]]}`)" if found else ""
