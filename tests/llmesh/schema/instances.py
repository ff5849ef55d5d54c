"""What hypothesis makes: instances of a schema, and messages within the limits of schemas."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any as Untyped

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from llmesh.schema import Limits

PLAIN = st.characters(codec="utf-8", exclude_characters='"\\\x7f', min_codepoint=0x20)
# All that JSON holds as it is: the same characters, as schemas name them and as hypothesis need not list them.
NAMED = "[ !#-\\[\\]-~\\x80-\ud7ff\ue000-\U0010ffff]"
INVERTED = r'[^\x00-\x1f"\\\x7f\ud800-\udfff]'
KEYS = string.ascii_letters + string.digits + "_.-"


def instances(schema: Mapping[str, Untyped]) -> st.SearchStrategy[Untyped]:  # noqa: PLR0911 one a kind
    """Instances of a schema of ours."""
    if "anyOf" in schema:
        return st.one_of([instances(each) for each in schema["anyOf"]])
    if "enum" in schema:
        values: list[object] = schema["enum"]
        return st.sampled_from(values)
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "string":
            pattern: str = schema["pattern"].replace(NAMED, INVERTED)
            return st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True)
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.floats(schema["minimum"], schema["maximum"]).map(lambda real: float(f"{real:.6f}"))
        case "array":
            item = instances(schema["items"])
            return st.lists(item, min_size=schema.get("minItems", 0), max_size=schema["maxItems"])
        case _:
            return _objects(schema)


def _objects(schema: Mapping[str, Untyped]) -> st.SearchStrategy[Untyped]:
    low, high = schema.get("minProperties", 0), schema.get("maxProperties")
    if "patternProperties" in schema:
        ((pattern, value),) = schema["patternProperties"].items()
        return st.dictionaries(
            instances({"type": "string", "pattern": pattern}), instances(value), min_size=low, max_size=high
        )
    properties = {name: instances(each) for name, each in schema["properties"].items()}
    if "maxProperties" in schema:
        value = next(iter(properties.values()))
        return st.dictionaries(st.sampled_from(sorted(properties)), value, min_size=low, max_size=high)
    needed = {name: properties.pop(name) for name in schema["required"]}
    return st.fixed_dictionaries(needed, optional=properties)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, limits: Limits, depth: int = 3) -> Message:
    """Messages of a type without rules, as large as the limits let them be."""
    made = message_factory.GetMessageClass(descriptor)()
    set_oneofs: set[str] = set()
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and (oneof.name in set_oneofs or draw(st.booleans())):
            continue
        if field.has_presence and oneof is None and draw(st.booleans()):
            continue
        if oneof is not None:
            set_oneofs.add(oneof.name)
        _fill(draw, made, field, limits, depth)
    return made


def _fill(draw: st.DrawFn, made: Untyped, field: FieldDescriptor, limits: Limits, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        entries = st.dictionaries(_keys(key, limits), _values(value, limits, depth), max_size=limits.entries)
        for name, each in draw(entries).items():
            if value.message_type is not None:
                getattr(made, field.name)[name].CopyFrom(each)
            else:
                getattr(made, field.name)[name] = each
    elif field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(_values(field, limits, depth), max_size=limits.items)))
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(draw(_values(field, limits, depth)))
    else:
        setattr(made, field.name, draw(_values(field, limits, depth)))


def _keys(field: FieldDescriptor, limits: Limits) -> st.SearchStrategy[Untyped]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(KEYS, min_size=1, max_size=limits.key_chars)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    unsigned = field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
    return st.integers(0 if unsigned else 1 - 10**9, 10**9 - 1)


def _values(field: FieldDescriptor, limits: Limits, depth: int) -> st.SearchStrategy[Untyped]:  # noqa: PLR0911 one a kind
    kind = field.type
    if field.message_type is not None and field.message_type.name == "Timestamp":
        made = message_factory.GetMessageClass(field.message_type)
        return st.builds(made, seconds=st.integers(0, 2**31), nanos=st.sampled_from([0, 10**6, 999_000, 999_999_999]))
    if field.message_type is not None:
        return messages(field.message_type, limits, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if kind == FieldDescriptor.TYPE_STRING:
        return st.text(PLAIN, max_size=limits.string_chars)
    if kind == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=limits.data_bytes).map(lambda data: data[: len(data) // 3 * 3])
    if kind == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return st.floats(-limits.number, limits.number)
    if kind == FieldDescriptor.TYPE_FLOAT:
        return st.floats(-limits.number, limits.number, width=32)
    return st.integers(*INTEGERS[field.cpp_type])


INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (1 - 10**18, 10**18 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 10**19 - 1),
}
