"""A message type, walked field by field into the schema of its JSON."""

from __future__ import annotations

__all__ = ["Schema", "schema_of"]

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import DecodeError

from llmesh.schema.errors import LeftOutError, NoSchemaError, SchemaTooLargeError
from llmesh.schema.known import KEY, WRAPPERS, check_own, is_known, known
from llmesh.schema.limits import Limits
from llmesh.schema.numbers import FLOATS, INTEGERS, decimal, floating, whole
from llmesh.schema.pattern import PATTERN_MAX_CHARS
from llmesh.schema.rules import NO_RULES, Asked, asked_of_field, asked_of_items, asked_of_oneof, oneof_rules, span
from llmesh.schema.shape import Json, Shape, any_of, array, choice, keyed, record
from llmesh.schema.strings import base64_text, expression, string

NO_ASK = Asked(NO_RULES)
NULL = "google.protobuf.NullValue"
# What no decoder would have to escape in a name.
NAME = re.compile(r"[ !#-\[\]-~]+")
# All that is made on the way, what is left out in the end too, as a multiple of what a schema may have.
WORK = 8
# What it costs to look at a field.
LOOK_CHARS = 100
# How often an expression is read, about, to find how long its texts may be.
READINGS = 50
# What an object adds to a field, about.
FIELD_CHARS = 16


@dataclass(frozen=True, slots=True)
class Schema:
    """The JSON that a message type takes: always some of what protobuf's JSON mapping has, and never more.

    max_bytes: of the longest instance, in UTF-8, with a space after each comma and colon and none elsewhere; no
    tokeniser takes more tokens than that. left_out: full names, in order, of the fields that instances lack:
    everywhere, or where they would be nested too deep.
    """

    type_name: str
    json: Json
    max_bytes: int
    left_out: tuple[str, ...]

    @property
    def text(self) -> str:
        """The schema as JSON text: the same for the same type, on every machine."""
        return json.dumps(self.json, ensure_ascii=False, separators=(",", ":"))


def schema_of(message: Descriptor, limits: Limits | None = None) -> Schema:
    """The schema of a type.

    Raises SchemaTooLargeError if it would pass the limits, and NoSchemaError if nothing of the type can be said; the
    errors name the type at fault.
    """
    walk = _Walk(message, limits or Limits())
    try:
        shape = walk.value(message, NO_ASK, Counter())
    except LeftOutError as err:
        raise NoSchemaError(message.full_name, f"no schema says a `{message.full_name}`: {err}") from err
    except DecodeError as err:
        raise NoSchemaError(message.full_name, f"`{message.full_name}` has options that can't be read") from err
    return Schema(message.full_name, shape.schema, shape.max_bytes, tuple(sorted(walk.left_out)))


@dataclass(frozen=True, slots=True)
class _Property:
    """A field of a message that has a shape. needed: instances always have it."""

    name: str
    shape: Shape
    needed: bool


class _Walk:
    """One way through the types under a root. above: how often each type is around what is looked at."""

    def __init__(self, root: Descriptor, limits: Limits) -> None:
        """Nothing is left out yet."""
        self.left_out: set[str] = set()
        self._root = root.full_name
        self._limits = limits
        self._work = 0
        self._asked: dict[str, Asked] = {}
        # By all that they depend on: to read an expression takes long, and many fields share one.
        self._strings: dict[tuple[bytes, bool, int | None], Shape] = {}

    def value(self, message: Descriptor, asked: Asked, above: Counter[str]) -> Shape:
        """A message as JSON writes it. Raises LeftOutError if no schema says it here."""
        if is_known(message):
            check_own(message)
            if message.name in WRAPPERS:
                return self._scalar(message.fields_by_name["value"], asked)
            self._spend_reading("".join(getattr(asked.rules.field_mask, "in")), message)
            return known(message, self._limits, asked)
        if above.total() >= self._limits.depth or above[message.full_name] > self._limits.recursion:
            raise LeftOutError(f"`{message.full_name}` would be nested too deep")
        if message.GetOptions().message_set_wire_format:
            raise LeftOutError(f"`{message.full_name}` is a message set, which has no JSON")
        return self._object(message, above + Counter([message.full_name]))

    def _object(self, message: Descriptor, above: Counter[str]) -> Shape:
        """A closed object; one for each way that the oneofs can be set."""
        found = {each.name: each for each in self._properties(message, above)}
        groups = list(_groups(message, found))
        count = math.prod(len(options) for options in groups)
        size = sum(each.shape.size + FIELD_CHARS for each in found.values())
        if count > self._limits.alternatives:
            raise self._too_large(f"the oneofs of `{message.full_name}` can be set in {count} ways", message)
        self._spend(count * size, message)
        grouped = {name for options in groups for name in options if name}
        absent = sum(not each.needed for name, each in found.items() if name not in grouped)
        if absent > self._limits.optional:
            raise self._too_large(f"{absent} fields of `{message.full_name}` may be absent", message)
        alternatives: list[Shape] = []
        for chosen in itertools.product(*groups):
            names = [name for name in found if name not in grouped or name in chosen]
            needed = [name for name in names if found[name].needed or name in chosen]
            alternatives.append(record({found[name].name: found[name].shape for name in names}, needed))
        return any_of(alternatives)

    def _properties(self, message: Descriptor, above: Counter[str]) -> Iterator[_Property]:
        """The fields that can be said, in the order of the contract. Raises LeftOutError if a needed one can't."""
        names: set[str] = set()
        for field in message.fields:
            self._spend(LOOK_CHARS, message)
            name = field.json_name
            if name in names or not NAME.fullmatch(name):
                raise NoSchemaError(
                    message.full_name, f"`{field.full_name}` has no JSON name of its own in plain ASCII"
                )
            names.add(name)
            asked = self._asked_of(field)
            try:
                shape = self._field(field, asked, above)
            except LeftOutError as err:
                if asked.needed:
                    raise LeftOutError(f"`{field.full_name}` is required, and {err}") from err
                self.left_out.add(field.full_name)
                continue
            self._spend(shape.size, message)
            present = not asked.spared and (field.is_repeated or not field.has_presence)
            yield _Property(name, shape.described(asked.description), asked.needed or present)

    def _asked_of(self, field: FieldDescriptor) -> Asked:
        if field.full_name not in self._asked:
            self._asked[field.full_name] = asked_of_field(field)
        return self._asked[field.full_name]

    def _field(self, field: FieldDescriptor, asked: Asked, above: Counter[str]) -> Shape:
        """The values of a field, the whole list or map of one that repeats."""
        if not field.is_repeated:
            return self._single(field, asked, above)
        rules = asked.rules
        least = int(asked.nonzero)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fields = field.message_type.fields_by_name
            pairs = rules.map
            most = pairs.max_pairs if pairs.HasField("max_pairs") else None
            low, high = span(max(least, pairs.min_pairs), most, limit=self._limits.entries, limits=self._limits)
            value = self._single(fields["value"], asked_of_items(pairs.values), above)
            return keyed(self._key(fields["key"], asked_of_items(pairs.keys)), value, low, high)
        items = rules.repeated
        most = items.max_items if items.HasField("max_items") else None
        low, high = span(max(least, items.min_items), most, limit=self._limits.items, limits=self._limits)
        return array(self._single(field, asked_of_items(items.items), above), low, high)

    def _single(self, field: FieldDescriptor, asked: Asked, above: Counter[str]) -> Shape:
        if field.message_type is not None:
            return self.value(field.message_type, asked, above)
        return self._scalar(field, asked)

    def _key(self, field: FieldDescriptor, asked: Asked) -> Shape:
        if field.type == FieldDescriptor.TYPE_BOOL:
            return choice(["false", "true"])
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._string(field, asked, otherwise=f"^{KEY}$", limit=self._limits.key_chars)
        return decimal(INTEGERS[field.type], asked)

    def _scalar(self, field: FieldDescriptor, asked: Asked) -> Shape:
        if field.type in INTEGERS:
            return whole(INTEGERS[field.type], asked)
        if field.type in FLOATS:
            return floating(FLOATS[field.type], self._limits, asked)
        if field.enum_type is not None:
            return _enum(field.enum_type, asked)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return _boolean(asked)
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._string(field, asked)
        return base64_text(self._limits, asked)

    def _string(
        self, field: FieldDescriptor, asked: Asked, *, otherwise: str = "^.*$", limit: int | None = None
    ) -> Shape:
        stated = (asked.rules.SerializeToString(), asked.nonzero, limit)
        if stated not in self._strings:
            # A field that is walked is in a message.
            self._spend_reading(expression(asked.rules.string), cast("Descriptor", field.containing_type))
            self._strings[stated] = string(self._limits, asked, otherwise=otherwise, limit=limit)
        return self._strings[stated]

    def _spend_reading(self, expression: str, message: Descriptor) -> None:
        """Count what it takes to read an expression."""
        self._spend(READINGS * min(len(expression), PATTERN_MAX_CHARS), message)

    def _spend(self, chars: int, message: Descriptor) -> None:
        """Count what is made. INVARIANT: nothing is multiplied out before it is counted."""
        self._work += chars
        if chars > self._limits.schema_chars or self._work > WORK * self._limits.schema_chars:
            raise self._too_large(
                f"more than {self._limits.schema_chars} characters, at `{message.full_name}`", message
            )

    def _too_large(self, why: str, message: Descriptor) -> SchemaTooLargeError:
        return SchemaTooLargeError(message.full_name, f"the schema of `{self._root}` would be too large: {why}")


def _groups(message: Descriptor, found: dict[str, _Property]) -> Iterator[list[str]]:
    """For each set of fields of which at most one is set: the names that can be; "" where none need be."""
    outline = DescriptorProto()
    message.CopyToProto(outline)
    # A proto3 optional field is alone in a oneof that the compiler made.
    optional = {field.name for field in outline.field if field.proto3_optional}
    grouped: set[str] = set()
    for oneof in message.oneofs:
        names = [field.json_name for field in oneof.fields if field.name not in optional]
        if names:
            grouped.update(names)
            yield _options(oneof.full_name, [found[name] for name in names if name in found], asked_of_oneof(oneof))
    for rule in oneof_rules(message):
        names = [message.fields_by_name[name].json_name for name in rule.fields if name in message.fields_by_name]
        if not grouped.intersection(names):
            grouped.update(names)
            members = [found[name] for name in names if name in found]
            yield _options(message.full_name, [replace(each, needed=False) for each in members], rule.required)


def _options(name: str, members: Sequence[_Property], required: bool) -> list[str]:  # noqa: FBT001 as it is in the rules
    needed = [each.name for each in members if each.needed]
    if len(needed) > 1 or (required and not members):
        raise LeftOutError(f"nothing can be set in `{name}`")
    return needed or [each.name for each in members] + ([] if required else [""])


def _boolean(asked: Asked) -> Shape:
    rules = asked.rules.bool
    if asked.rules.WhichOneof("type") == "bool" and rules.HasField("const"):
        return choice([rules.const])
    return choice([True]) if asked.nonzero else Shape({"type": "boolean"}, 18, len("false"))


def _enum(enum: EnumDescriptor, asked: Asked) -> Shape:
    """The names of an enum's values, the first of each number: as JSON is written."""
    if enum.full_name == NULL:
        return choice([None])
    rules = asked.rules.enum
    named = [rules.const] if rules.HasField("const") else list(getattr(rules, "in"))
    names: dict[int, str] = {}
    for value in enum.values:
        if value.number not in rules.not_in and not (asked.nonzero and value.number == 0):
            names.setdefault(value.number, value.name)
    kept = [name for number, name in names.items() if not named or number in named]
    if not kept:
        raise LeftOutError("its rules leave no value")
    return choice(kept)
