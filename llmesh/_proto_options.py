"""Options as .proto source writes them, custom ones included."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from google.protobuf import message_factory, text_encoding, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message


class SourceError(ValueError):
    """A file uses what cannot be written down; the message says what."""


def quoted(text: str | bytes) -> str:
    """A string or bytes literal."""
    # With as_utf8, CEscape takes text, which its stub doesn't know.
    return f'"{_readable(text_encoding.CEscape(text, as_utf8=isinstance(text, str)))}"'  # pyright: ignore[reportArgumentType]


def _readable(escaped: str) -> str:
    """The same without the escapes of apostrophes, which need none within quotes."""
    return re.sub(r"\\(.)", lambda found: "'" if found[1] == "'" else found[0], escaped)


def known_options(options: Message, pool: DescriptorPool) -> Message:
    """The options as the pool reads them, extensions included.

    Raises SourceError if they have one that the pool doesn't know: it would be lost.
    """
    try:
        kind = pool.FindMessageTypeByName(options.DESCRIPTOR.full_name)
    except KeyError:
        # No file imports descriptor.proto, so none has options of its own.
        return options
    known = message_factory.GetMessageClass(kind).FromString(options.SerializeToString())
    if text_format.MessageToString(known, print_unknown_fields=True) != text_format.MessageToString(known):
        raise SourceError(f"a `{kind.full_name}` has options whose definition is not part of the contract")
    return known


def option_text(field: FieldDescriptor, value: object) -> Iterator[str]:
    """The value of an option, or each value of a repeated one. A message spans lines."""
    if not field.is_repeated:
        yield _one(field, value)
        return
    for item in value:  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType] of a repeated field
        yield _one(field, item)  # pyright: ignore[reportUnknownArgumentType] as above


def _one(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        text = _readable(text_format.MessageToString(value, as_utf8=True))
        return "{\n" + "".join(f"  {line}\n" for line in text.splitlines()) + "}" if text else "{}"
    if isinstance(value, (str, bytes)):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and field.enum_type:
        names = field.enum_type.values_by_number
        if value not in names:
            raise SourceError(f"option `{field.full_name}` has {value}, which its enum does not name")
        return names[value].name
    if isinstance(value, float):
        return _float(value)
    return str(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return repr(value)
