"""The parts that schemas are made of, each with what it costs."""

from __future__ import annotations

__all__ = ["Json", "Shape", "any_of", "array", "choice", "integer", "keyed", "number", "record", "text"]

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

Json = dict[str, object]

# What a separator takes: a comma or a colon, and the space that some decoders put after it.
SEPARATOR_BYTES = 2
# Digits after the point, and the point, that decoders give a number; an exponent takes less.
FRACTION_BYTES = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema; its length in characters, about; and the bytes of its longest instance, in UTF-8."""

    schema: Json
    size: int
    max_bytes: int

    def described(self, description: str) -> Shape:
        """The same, with words for people and models; none if they are empty."""
        if not description:
            return self
        schema = {"description": description, **self.schema}
        return replace(self, schema=schema, size=self.size + len(description) + 20)


def _leaf(schema: Json, max_bytes: int) -> Shape:
    return Shape(schema, len(json.dumps(schema)), max_bytes)


def choice(values: Sequence[object]) -> Shape:
    """One of some JSON values."""
    return _leaf({"enum": list(values)}, max(len(json.dumps(value)) for value in values))


def text(pattern: str, max_bytes: int) -> Shape:
    """A string that matches the whole pattern, which lets nothing through that JSON would escape."""
    return _leaf({"type": "string", "pattern": f"^{pattern}$"}, max_bytes + 2)


def integer(low: int, high: int) -> Shape:
    """A whole number, the bounds included."""
    digits = max(len(str(low)), len(str(high)))
    return _leaf({"type": "integer", "minimum": low, "maximum": high}, digits)


def number(low: float, high: float) -> Shape:
    """A number, the bounds included."""
    bounds = [int(bound) if bound.is_integer() else bound for bound in (float(low), float(high))]
    digits = max(len(str(int(bound))) for bound in bounds) + 1
    return _leaf({"type": "number", "minimum": bounds[0], "maximum": bounds[1]}, digits + FRACTION_BYTES)


def array(item: Shape, low: int, high: int) -> Shape:
    """A list of low to high items."""
    schema: Json = {"type": "array", "items": item.schema}
    if low:
        schema["minItems"] = low
    schema["maxItems"] = high
    return Shape(schema, item.size + 50, high * (item.max_bytes + SEPARATOR_BYTES) + 2)


def keyed(key: Shape, value: Shape, low: int, high: int) -> Shape:
    """An object of low to high entries whose keys are all of one shape: a text's, or a choice's."""
    schema: Json = {"type": "object"}
    size = value.size + key.size + 80
    if "enum" in key.schema:
        names = _strings(key.schema["enum"])
        schema["properties"] = dict.fromkeys(names, value.schema)
        high = min(high, len(names))
        size = sum(value.size + len(name) + 4 for name in names) + 80
    else:
        schema["patternProperties"] = {str(key.schema["pattern"]): value.schema}
    schema["additionalProperties"] = False
    if low:
        schema["minProperties"] = low
    schema["maxProperties"] = high
    return Shape(schema, size, high * (key.max_bytes + value.max_bytes + 2 * SEPARATOR_BYTES) + 2)


def _strings(values: object) -> list[str]:
    return [str(value) for value in cast("list[object]", values)]


def record(properties: Mapping[str, Shape], required: Collection[str]) -> Shape:
    """A closed object, its names in order."""
    schema: Json = {
        "type": "object",
        "properties": {name: shape.schema for name, shape in properties.items()},
        "required": [name for name in properties if name in required],
        "additionalProperties": False,
    }
    size = 80 + sum(shape.size + 2 * len(name) + 8 for name, shape in properties.items())
    longest = 2 + sum(len(name) + 2 + shape.max_bytes + 2 * SEPARATOR_BYTES for name, shape in properties.items())
    return Shape(schema, size, longest)


def any_of(shapes: Sequence[Shape]) -> Shape:
    """One of several shapes; the shape itself if it is the only one."""
    if len(shapes) == 1:
        return shapes[0]
    size = sum(shape.size + 2 for shape in shapes) + 12
    return Shape({"anyOf": [shape.schema for shape in shapes]}, size, max(shape.max_bytes for shape in shapes))
