"""Numbers: between the bounds of their type and those that the contract states."""

from __future__ import annotations

__all__ = ["FLOATS", "INTEGERS", "decimal", "floating", "whole"]

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any as Untyped

from google.protobuf.descriptor import FieldDescriptor as Field

from llmesh.schema.digits import between
from llmesh.schema.errors import LeftOutError
from llmesh.schema.limits import Limits
from llmesh.schema.rules import Asked
from llmesh.schema.shape import Shape, any_of, choice, integer, number, text

# A step inside an excluded bound: decoders count six digits after the point. Far from 0, so many of the bound's bits.
STEP = 1e-6
PRECISION = {"float": 2.0**-22, "double": 2.0**-50}
# Farther than this from 0, JSON writes a double with an exponent, which decoders' bounds do not take.
FARTHEST = 1e15


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of whole numbers. name: protovalidate's for its rules. low and high: its own bounds.

    usual: the bounds of a field without rules. quoted: JSON writes it as a string, for 64 bits are more than many
    readers' numbers hold.
    """

    name: str
    low: int
    high: int
    usual: tuple[int, int]
    quoted: bool


def _short(name: str, low: int, high: int) -> Kind:
    return Kind(name, low, high, (low, high), quoted=False)


def _long(name: str, low: int, high: int) -> Kind:
    # As many digits as always fit.
    usual = (1 - 10**18, 10**18 - 1) if low else (0, 10**19 - 1)
    return Kind(name, low, high, usual, quoted=True)


INTEGERS = {
    Field.TYPE_INT32: _short("int32", -(2**31), 2**31 - 1),
    Field.TYPE_SINT32: _short("sint32", -(2**31), 2**31 - 1),
    Field.TYPE_SFIXED32: _short("sfixed32", -(2**31), 2**31 - 1),
    Field.TYPE_UINT32: _short("uint32", 0, 2**32 - 1),
    Field.TYPE_FIXED32: _short("fixed32", 0, 2**32 - 1),
    Field.TYPE_INT64: _long("int64", -(2**63), 2**63 - 1),
    Field.TYPE_SINT64: _long("sint64", -(2**63), 2**63 - 1),
    Field.TYPE_SFIXED64: _long("sfixed64", -(2**63), 2**63 - 1),
    Field.TYPE_UINT64: _long("uint64", 0, 2**64 - 1),
    Field.TYPE_FIXED64: _long("fixed64", 0, 2**64 - 1),
}

FLOATS = {Field.TYPE_FLOAT: "float", Field.TYPE_DOUBLE: "double"}


def whole(kind: Kind, asked: Asked) -> Shape:
    """A whole number, as JSON writes one of its type. Raises LeftOutError if the rules leave none."""
    rules = _of_type(kind.name, asked)
    values = _listed(rules)
    if values is not None:
        return choice([str(value) if kind.quoted else value for value in values])
    low, high = kind.usual
    least, most = _bounds(rules, lambda _: 1)
    if least is not None:
        low, high = int(least), max(high, min(kind.high, int(least) + 10**9))
    if most is not None:
        low, high = low if least is not None or most >= low else kind.low, int(most)
    parts = [(low, high)]
    if asked.nonzero and low <= 0 <= high:
        parts = [(low, -1), (1, high)]
    parts = [(first, last) for first, last in parts if first <= last]
    if not parts:
        raise LeftOutError("its rules leave no number")
    if not kind.quoted:
        return any_of([integer(first, last) for first, last in parts])
    pattern = "|".join(between(first, last) for first, last in parts)
    digits = max(len(str(bound)) for part in parts for bound in part)
    return text(f"({pattern})" if len(parts) > 1 else pattern, digits)


def decimal(kind: Kind, asked: Asked) -> Shape:
    """A whole number as JSON writes it where it is a map's key: as a string, whatever its type."""
    usual = (max(kind.low, 1 - 10**9), 10**9 - 1)
    return whole(replace(kind, usual=usual, quoted=True), asked)


def floating(name: str, limits: Limits, asked: Asked) -> Shape:
    """A "float" or a "double"; never one that is infinite, or no number. Raises LeftOutError as `whole` does."""
    rules = _of_type(name, asked)
    values = _listed(rules)
    if values is not None:
        return choice([_shortest(value) if name == "float" else value for value in values])
    least, most = _bounds(rules, lambda bound: max(STEP, abs(bound) * PRECISION[name]))
    low = -limits.number if least is None else least
    high = limits.number if most is None else most
    if least is not None and most is None:
        high = max(high, low + limits.number)
    if most is not None and least is None:
        low = min(low, high - limits.number)
    low, high = max(low, -FARTHEST), min(high, FARTHEST)
    if low > high:
        raise LeftOutError("its rules leave no number")
    if not (asked.nonzero and low <= 0 <= high):
        return number(low, high)
    return any_of([number(*part) for part in ((low, -STEP), (STEP, high)) if part[0] <= part[1]])


def _of_type(name: str, asked: Asked) -> Untyped:
    """The rules for that type of number; None if there are none."""
    return getattr(asked.rules, name) if asked.rules.WhichOneof("type") == name else None


def _listed(rules: Untyped) -> list[Untyped] | None:
    """The values that the rules name; None if they name none. Raises LeftOutError if none of them is allowed."""
    if rules is None:
        return None
    named: list[Untyped] = [rules.const] if rules.HasField("const") else list(getattr(rules, "in"))
    if not named:
        return None
    kept = [value for value in dict.fromkeys(named) if value not in rules.not_in and math.isfinite(value)]
    if not kept:
        raise LeftOutError("its rules leave no number")
    return kept


def _bounds(rules: Untyped, step: Callable[[Untyped], float]) -> tuple[Untyped | None, Untyped | None]:
    """The least and the most that the rules allow; None where they say nothing. step: to get inside an excluded one.

    Where they allow what is below one bound or above another, what is above counts.
    """
    if rules is None:
        return None, None
    lower, upper = rules.WhichOneof("greater_than"), rules.WhichOneof("less_than")
    least = getattr(rules, lower) if lower else None
    most = getattr(rules, upper) if upper else None
    if any(bound is not None and math.isnan(bound) for bound in (least, most)):
        raise LeftOutError("its rules leave no number")
    if least is not None and most is not None and most < least:
        most = None
    if least is not None and lower == "gt":
        least += step(least)
    if most is not None and upper == "lt":
        most -= step(most)
    return least, most


def _shortest(value: float) -> float:
    """The shortest number that is the same in single precision, as JSON writes it."""
    return next(
        short
        for short in (float(f"{value:.{digits}g}") for digits in range(6, 18))
        if struct.pack("<f", short) == struct.pack("<f", value)
    )
