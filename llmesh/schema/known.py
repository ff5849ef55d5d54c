"""The messages of google.protobuf that JSON writes in a way of their own."""

from __future__ import annotations

__all__ = ["KEY", "WRAPPERS", "check_own", "is_known", "known"]

import re
from collections.abc import Callable

from google.protobuf import (
    any_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor

from llmesh.schema.digits import between
from llmesh.schema.errors import LeftOutError, NoSchemaError
from llmesh.schema.limits import Limits
from llmesh.schema.rules import Asked
from llmesh.schema.shape import Shape, any_of, array, choice, keyed, number, text
from llmesh.schema.strings import matching, plain

# A map's key.
KEY = "[A-Za-z0-9_.-]+"

WRAPPERS = frozenset(wrappers_pb2.DESCRIPTOR.message_types_by_name)

# Every day but the 29th of February.
_DATE = (
    "(19|20)[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
# Milliseconds, microseconds or nanoseconds.
_FRACTION = r"(\.([0-9]{3}){1,3})?"
_TIMESTAMP = f"{_DATE}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{_FRACTION}Z"
_DURATION = rf"-?(0|[1-9][0-9]{{0,8}}){_FRACTION}s"
_DURATION_MAX_S = 315_576_000_000
_PATH = r"[a-z][a-zA-Z0-9]{0,15}(\.[a-z][a-zA-Z0-9]{0,15}){0,2}"
_PATHS_MAX = 4


def is_known(message: Descriptor) -> bool:
    """Whether JSON writes messages of this type in a way of their own."""
    return message.full_name in _KNOWN or message.full_name.removeprefix("google.protobuf.") in WRAPPERS


def known(message: Descriptor, limits: Limits, asked: Asked) -> Shape:
    """The shape of such a message, wrappers apart. Raises LeftOutError for Any, or if the rules leave no value."""
    return _KNOWN[message.full_name](limits, asked)


def check_own(message: Descriptor) -> None:
    """Raise NoSchemaError if the type isn't what google.protobuf has under that name: JSON would not be read back."""
    own = descriptor_pool.Default().FindMessageTypeByName(message.full_name)
    if _outline(own) != _outline(message):
        raise NoSchemaError(message.full_name, f"`{message.full_name}` is not the type that is known by this name")


def _outline(message: Descriptor) -> list[tuple[str, int, int, bool]]:
    return [(field.name, field.number, field.type, field.is_repeated) for field in message.fields]


def _any(_limits: Limits, _asked: Asked) -> Shape:
    raise LeftOutError("an Any can hold a message of any type, and a schema has to name it")


def _timestamp(_limits: Limits, asked: Asked) -> Shape:
    rules = asked.rules.timestamp
    if rules.HasField("const"):
        return choice([_written(rules.const)])
    return matching(f"^{_TIMESTAMP}$")


def _duration(_limits: Limits, asked: Asked) -> Shape:
    rules = asked.rules.duration
    named = [rules.const] if rules.HasField("const") else list(getattr(rules, "in"))
    if named:
        return choice([_written(each) for each in named])
    lower, upper = rules.WhichOneof("greater_than"), rules.WhichOneof("less_than")
    if not lower and not upper:
        return matching(f"^{_DURATION}$")
    # Whole seconds between the bounds.
    low, high = -_DURATION_MAX_S, _DURATION_MAX_S
    if lower:
        least: duration_pb2.Duration = getattr(rules, lower)
        low = least.seconds + (1 if lower == "gt" or least.nanos > 0 else 0)
    if upper:
        most: duration_pb2.Duration = getattr(rules, upper)
        high = most.seconds - (1 if most.nanos < 0 or (upper == "lt" and not most.nanos) else 0)
    if not -_DURATION_MAX_S <= low <= high <= _DURATION_MAX_S:
        return matching(f"^{_DURATION}$")
    return text(f"{between(low, high)}s", max(len(str(low)), len(str(high))) + 1)


def _field_mask(_limits: Limits, asked: Asked) -> Shape:
    rules = asked.rules.field_mask
    if rules.HasField("const"):
        return choice([_written(rules.const)])
    names = [re.escape(_written(field_mask_pb2.FieldMask(paths=[path]))) for path in getattr(rules, "in")]
    path = f"({'|'.join(names)})" if names else _PATH
    return matching(f"^{path}(,{path}){{0,{_PATHS_MAX - 1}}}$")


def _written(message: timestamp_pb2.Timestamp | duration_pb2.Duration | field_mask_pb2.FieldMask) -> str:
    try:
        return message.ToJsonString()
    except ValueError as err:
        raise LeftOutError("its rules name a value that JSON can't write") from err


def _struct(limits: Limits, asked: Asked) -> Shape:
    key = matching(f"^{KEY}$", most=limits.key_chars)
    return keyed(key, _value(limits, asked), 0, limits.entries)


def _list_value(limits: Limits, asked: Asked) -> Shape:
    return array(_value(limits, asked), 0, limits.items)


def _value(limits: Limits, _asked: Asked) -> Shape:
    return any_of(
        [
            choice([None, False, True]),
            number(-limits.number, limits.number),
            plain(limits.string_chars),
        ]
    )


_KNOWN: dict[str, Callable[[Limits, Asked], Shape]] = {
    any_pb2.Any.DESCRIPTOR.full_name: _any,
    timestamp_pb2.Timestamp.DESCRIPTOR.full_name: _timestamp,
    duration_pb2.Duration.DESCRIPTOR.full_name: _duration,
    field_mask_pb2.FieldMask.DESCRIPTOR.full_name: _field_mask,
    struct_pb2.Struct.DESCRIPTOR.full_name: _struct,
    struct_pb2.Value.DESCRIPTOR.full_name: _value,
    struct_pb2.ListValue.DESCRIPTOR.full_name: _list_value,
}
