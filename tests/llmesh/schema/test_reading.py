"""Texts as messages: what isn't one is told in words, whatever it is."""

import contextlib
import json
from typing import Any as Untyped

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from llmesh.schema import BadJson, read_text, read_value
from tests.llmesh.schema.shapes import shapes

BAD = {
    "no JSON": ("{", "not JSON"),
    "nothing": ("", "not JSON"),
    "more than one value": ("{} {}", "not JSON"),
    "no object": ("[]", "is a JSON object"),
    "an unknown field": ('{"nope": 1}', "nope"),
    "a field twice": ('{"text": "a", "text": "b"}', "`text` is given twice"),
    "a field by both names": ('{"i32": 1, "i32": 1}', "twice"),
    "no number": ('{"real": NaN}', "`NaN` is no number"),
    "infinity": ('{"real": Infinity}', "`Infinity` is no number"),
    "minus infinity": ('{"real": -Infinity}', "`-Infinity` is no number"),
    "a number beyond all": ('{"real": 1e999}', "real"),
    "a whole number beyond all": ('{"i32": 1e999}', "i32"),
    "too many digits": ('{"i64": ' + "9" * 5000 + "}", "digits"),
    "a number out of bounds": ('{"i32": 2147483648}', "i32"),
    "a fraction for a whole number": ('{"i32": 1.5}', "i32"),
    "a name that an enum lacks": ('{"colour": "COLOUR_MAUVE"}', "COLOUR_MAUVE"),
    "half a character": ('{"text": "\\ud800"}', "text"),
    "nested without end": ("[" * 100_000, "too deep"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_a_text_that_is_no_message_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(BadJson, match=words):
        read_text(text, shapes()["Scalars"])


DEEP = {
    "lists": ("ListValue", "[" * 900 + "]" * 900),
    "values": ("Value", "[" * 900 + "]" * 900),
    "structs": ("Struct", '{"a":' * 900 + "1" + "}" * 900),
}


@pytest.mark.parametrize(("known", "text"), DEEP.values(), ids=DEEP)
def test_a_text_that_is_nested_too_deep_for_its_type_is_told_in_words(known: str, text: str) -> None:
    type_ = struct_pb2.DESCRIPTOR.message_types_by_name[known]
    with pytest.raises(BadJson, match="too deep"):
        read_text(text, type_)
    with pytest.raises(BadJson, match="too deep"):
        read_value(json.loads(text), type_)


def test_a_name_that_is_given_twice_is_found_among_very_many() -> None:
    """In one pass: where each is counted, this takes the better part of an hour."""
    names = ",".join(f'"a{number}": 1' for number in range(400_000))
    with pytest.raises(BadJson, match="`a399999` is given twice"):
        read_text(f'{{{names}, "a399999": 2}}', struct_pb2.Struct.DESCRIPTOR)


def test_a_message_is_read() -> None:
    found: Untyped = read_text('{"text": "a", "i64": "-5", "colour": "COLOUR_RED"}', shapes()["Scalars"])
    assert (found.text, found.i64, found.colour) == ("a", -5, 1)


def test_messages_that_json_writes_otherwise_are_read() -> None:
    times = shapes()["Times"].fields_by_name
    assert times["at"].message_type is not None
    found: Untyped = read_text('"2026-05-30T01:02:03Z"', times["at"].message_type)
    assert found.seconds == 1780102923


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KNOWN = (
    "Any",
    "Timestamp",
    "Duration",
    "FieldMask",
    "Struct",
    "Value",
    "ListValue",
    "Int64Value",
    "BytesValue",
    "Empty",
)
TYPES = {
    **shapes(),
    **{name: shapes()["WithAny"].file.pool.FindMessageTypeByName(f"google.protobuf.{name}") for name in KNOWN},
}
FIELDS = sorted({field.json_name for shape in shapes().values() for field in shape.fields})


@given(name=st.sampled_from(sorted(TYPES)), value=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_whatever_the_value_it_is_read_or_refused_in_words(name: str, value: object) -> None:
    with contextlib.suppress(BadJson):
        assert read_value(value, TYPES[name]).DESCRIPTOR is TYPES[name]


@given(name=st.sampled_from(sorted(TYPES)), text=st.text() | JSON.map(json.dumps))
def test_whatever_the_text_it_is_read_or_refused_in_words(name: str, text: str) -> None:
    with contextlib.suppress(BadJson):
        assert read_text(text, TYPES[name]).DESCRIPTOR is TYPES[name]
