"""A request as a prompt reads it: by the fields of its contract and no other way, within bounds."""

from __future__ import annotations

__all__ = ["LENGTH_MAX", "TURNS_MAX", "Fields", "Many", "Pairs", "Room", "read", "told", "too_long", "written"]

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from llmesh._prompt_check import Shape, shape_of, shape_of_one
from llmesh.errors import InvalidCall

# Characters of all that is rendered, and of all that is read for it.
LENGTH_MAX = 262_144
# Of all loops together, each turn of an inner one counted.
TURNS_MAX = 1_000


class Room:
    """What is left of the bounds of one rendering."""

    __slots__ = ("_turns", "_unread")

    def __init__(self) -> None:
        self._unread = LENGTH_MAX
        self._turns = TURNS_MAX

    def read(self, text: str) -> str:
        """The text. Raises InvalidCall where too much has been read."""
        self._unread -= len(text)
        if self._unread < 0:
            raise too_long(f"the request fills the prompt with more than {LENGTH_MAX} characters")
        return text

    def turn(self) -> None:
        """One turn of a loop. Raises InvalidCall where there were too many."""
        self._turns -= 1
        if self._turns < 0:
            raise too_long(f"the request has the prompt go through more than {TURNS_MAX} entries")


def too_long(words: str) -> InvalidCall:
    """What a caller is told whose request makes too much of a prompt."""
    return InvalidCall(words, reason="PROMPT_TOO_LONG")


class Fields:
    """A message: each of its fields as an attribute. False where it is unset; its fields then read as unset ones do."""

    __slots__ = ("_is_set", "_message", "_room")

    def __init__(self, message: Message, room: Room, *, is_set: bool = True) -> None:
        self._message = message
        self._room = room
        self._is_set = is_set

    def __getattr__(self, name: str) -> object:
        field = self._message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise AttributeError(name)
        return read(self._message, cast("FieldDescriptor", field), self._room)

    def __bool__(self) -> bool:
        return self._is_set

    # No name without `_`: a field may be called so.
    def __str__(self) -> str:
        """As protobuf's JSON. Raises InvalidCall for what JSON cannot say, such as a time that there is not."""
        try:
            whole = json_format.MessageToDict(self._message, preserving_proto_field_name=True)
        # The last two: what an Any holds is read only now, and may hold another, and so on.
        except (json_format.Error, ValueError, TypeError, DecodeError, RecursionError) as err:
            name = self._message.DESCRIPTOR.full_name
            raise InvalidCall(f"a `{name}` of the request cannot be told as JSON") from err
        return self._room.read(json.dumps(whole, ensure_ascii=False))


class Many:
    """A repeated field's entries."""

    __slots__ = ("_entries", "_room", "_view")

    def __init__(self, entries: Sequence[object], view: Callable[[object], object], room: Room) -> None:
        self._entries = entries
        self._view = view
        self._room = room

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[object]:
        for each in self._entries:
            self._room.turn()
            yield self._view(each)

    def joined(self, separator: str = "") -> str:
        """The entries as one text."""
        return separator.join(self._counted(separator))

    def _counted(self, separator: str) -> Iterator[str]:
        for each in self:
            self._room.read(separator)
            yield written(each)


class Pairs:
    """A map's keys and values, in order of the keys."""

    __slots__ = ("_entries", "_room", "_view")

    def __init__(self, entries: Mapping[str | int, object], view: Callable[[object], object], room: Room) -> None:
        self._entries = entries
        self._view = view
        self._room = room

    def __len__(self) -> int:
        return len(self._entries)

    def pairs(self) -> Iterator[tuple[str, object]]:
        """Each key with its value."""
        for key in sorted(self._entries):
            self._room.turn()
            yield self._room.read(written(key)), self._view(self._entries[key])


def read(message: Message, field: FieldDescriptor, room: Room) -> object:
    """What a field of the message holds, as a prompt reads it."""
    value: object = getattr(message, field.name)
    match shape_of(field):
        case Shape.MAP:
            held = cast("Descriptor", field.message_type).fields_by_name["value"]
            return Pairs(cast("Mapping[str | int, object]", value), lambda each: _one(each, held, room), room)
        case Shape.MANY:
            return Many(cast("Sequence[object]", value), lambda each: _one(each, field, room), room)
        case Shape.MESSAGE:
            return Fields(cast("Message", value), room, is_set=message.HasField(field.name))
        case _ if field.message_type is not None and not message.HasField(field.name):
            return ""
        case _:
            return _one(value, field, room)


def _one(value: object, field: FieldDescriptor, room: Room) -> object:
    match value:
        case Message() if shape_of_one(field) is Shape.TEXT:
            return room.read(_moment(cast("Timestamp | Duration", value), field))
        case Message():
            return Fields(value, room)
        case bytes():
            return room.read(base64.b64encode(value).decode())
        case int() if field.enum_type is not None:
            named = field.enum_type.values_by_number.get(value)
            return room.read(named.name if named else str(value))
        case str():
            return room.read(value)
        case _:
            return value


def _moment(value: Timestamp | Duration, field: FieldDescriptor) -> str:
    try:
        return value.ToJsonString()
    except ValueError as err:
        raise InvalidCall(f"`{field.name}` is no {value.DESCRIPTOR.name} that there is") from err


def written(value: object) -> str:
    """A value as it is written into a prompt: as protobuf's JSON has it, but for a text, which is as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def told(value: object) -> str:
    """A value as JSON, a text in quotes."""
    match value:
        case Fields():
            return str(value)
        case Many():
            return f"[{', '.join(told(each) for each in value)}]"
        case _:
            return json.dumps(value, ensure_ascii=False)
