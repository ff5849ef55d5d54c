"""JSON text as a message: strictly, since what a text says twice or beside the type is not what its reader will see."""

from __future__ import annotations

__all__ = ["read_text", "read_value"]

import json
from collections.abc import Callable
from typing import Never

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from llmesh.schema.errors import BadJson
from llmesh.schema.known import is_known

Pairs = list[tuple[str, object]]


def read_text(text: str, message: Descriptor, *, last_of_repeated: bool = False) -> Message:
    """The message that a JSON text says. Raises BadJson, and nothing else, whatever the text.

    A name that is given twice is refused, as are NaN and infinity. last_of_repeated: of entries with one key the last
    one stands, as on the wire: for texts of a decoder that is held to a schema, which can't keep a map's keys apart.
    """
    hook: Callable[[Pairs], object] = dict if last_of_repeated else _once_each
    try:
        value: object = json.loads(text, object_pairs_hook=hook, parse_constant=_refuse)
    except json.JSONDecodeError as err:
        raise BadJson(f"not JSON: {err}") from err
    except RecursionError as err:
        raise BadJson("nested too deep") from err
    except ValueError as err:
        # Ours, or a whole number of more digits than Python reads.
        raise BadJson(str(err)) from err
    return read_value(value, message)


def read_value(value: object, message: Descriptor) -> Message:
    """The message that a parsed JSON value says. Raises BadJson, and nothing else."""
    if not (is_known(message) or isinstance(value, dict)):
        raise BadJson(f"a `{message.full_name}` is a JSON object")
    made = message_factory.GetMessageClass(message)()
    try:
        return json_format.ParseDict(value, made, descriptor_pool=message.file.pool)  # pyright: ignore[reportArgumentType, reportUnknownMemberType] any JSON
    except json_format.ParseError as err:
        raise BadJson(" ".join(str(err).split()).rstrip(".")) from err
    except RecursionError as err:
        raise BadJson("nested too deep") from err
    # What it lets through where the whole value is of another kind than one of google.protobuf's own.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        raise BadJson(f"the value is not a `{message.full_name}`") from err


def _once_each(pairs: Pairs) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"`{name}` is given twice")
        found[name] = value
    return found


def _refuse(constant: str) -> Never:
    raise ValueError(f"`{constant}` is no number of JSON")
