"""Schemas and messages, back and forth: whatever a schema lets through is a message, and the other way round."""

import json
from typing import Any as Untyped

import protovalidate
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmesh.schema import Limits, read_text, schema_of
from tests.llmesh.schema.instances import instances, messages
from tests.llmesh.schema.shapes import shapes

SMALL = Limits(string_chars=12, data_bytes=9, key_chars=6, items=2, entries=2, depth=4)
SCHEMAS = {name: schema_of(message, SMALL) for name, message in shapes().items()}
# Those that have no rules, and nothing that is left out.
PLAIN = ("Scalars", "Optionals", "Lists", "Maps", "Nested", "Choice", "Underscore", "Names", "Point", "Nothing")
VALIDATOR = protovalidate.Validator()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_of_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name].json)


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=15)
@given(data=st.data())
def test_an_instance_of_a_schema_is_a_message_that_keeps_the_rules(name: str, data: st.DataObject) -> None:
    value = data.draw(instances(SCHEMAS[name].json))
    text = json.dumps(value, ensure_ascii=False)
    message = read_text(text, shapes()[name])
    assert [str(found.proto) for found in VALIDATOR.collect_violations(message)] == []
    assert len(text.encode()) <= SCHEMAS[name].max_bytes


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=15)
@given(data=st.data())
def test_a_message_within_the_limits_is_an_instance(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(shapes()[name], SMALL))
    value = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    judge: Untyped = Draft202012Validator(SCHEMAS[name].json)
    assert judge.is_valid(value)
    assert read_text(json.dumps(value), shapes()[name]) == message


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=5)
@given(data=st.data())
def test_what_is_read_is_written_as_an_instance_again(name: str, data: st.DataObject) -> None:
    message = read_text(json.dumps(data.draw(instances(SCHEMAS[name].json))), shapes()[name])
    again = json.dumps(json_format.MessageToDict(message))
    assert read_text(again, shapes()[name]) == message
