"""A JSON Schema as one that a grammar is soon made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

__all__ = ["shared"]

Json = Mapping[str, object]

# Below so many characters a schema costs no more than a reference to it.
SMALL_CHARS = 40


def shared(schema: str) -> str:
    """The same schema with each of its parts written once, and without words for readers.

    The time to make a grammar grows with what is written out, and most types
    have many fields of one kind: a thousand of `bytes` would take seconds. Parts
    hold no part that holds them, so references have an end. schema: of
    llmesh.schema, or as plain: its parts are under `properties`,
    `patternProperties`, `items` and `anyOf`.
    """
    parts: dict[str, str] = {}
    root = _parted(json.loads(schema), parts)
    named = {name: json.loads(text) for text, name in parts.items()}
    return json.dumps({**root, "$defs": named} if named else root, ensure_ascii=False, separators=(",", ":"))


def _parted(schema: Json, parts: dict[str, str]) -> Json:
    """A schema with references for its parts. parts: the names of those found so far, by their text."""
    found = dict[str, object]()
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            found[key] = {name: _part(each, parts) for name, each in cast("Mapping[str, Json]", value).items()}
        elif key == "items":
            found[key] = _part(cast("Json", value), parts)
        elif key == "anyOf":
            found[key] = [_part(each, parts) for each in cast("list[Json]", value)]
        elif key != "description":
            found[key] = value
    return found


def _part(schema: Json, parts: dict[str, str]) -> Json:
    """A reference to it; itself, if it is small."""
    found = _parted(schema, parts)
    text = json.dumps(found)
    if len(text) < SMALL_CHARS:
        return found
    return {"$ref": f"#/$defs/{parts.setdefault(text, f'p{len(parts)}')}"}
