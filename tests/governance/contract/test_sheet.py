"""What a contract does not say is read as the most restrictive thing it could have said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)
from hypothesis import given
from hypothesis import strategies as st

from governance.contract.sheet import CALL_CAP, STREAM_CAP, DataClasses, MethodSheet, has_sheet, read_method, read_tool
from governance.contract.types import messages
from llmesh.api.options.v1 import options_pb2 as options

NONE = DataClasses({})


def method(text: str = "", *, streams: bool = False) -> MethodDescriptorProto:
    definition = MethodDescriptorProto(name="Get", server_streaming=streams)
    text_format.Parse(text, definition.options.Extensions[options.method])
    return definition


def read(text: str = "", *, streams: bool = False) -> MethodSheet:
    return read_method(method(text, streams=streams), NONE)


def test_a_method_that_says_nothing_may_do_anything() -> None:
    sheet = read()
    assert sheet.effect == sheet.options.effect == options.EFFECT_DESTRUCTIVE
    assert sheet.options.cost == options.COST_HIGH
    assert (sheet.deadline, sheet.idle) == (timedelta(seconds=30), None)
    assert sheet.max_concurrency == 1024
    assert not sheet.idempotent
    assert sheet.unclassified


@pytest.mark.parametrize("text", ["effect: 4", "effect: 99", "effect: EFFECT_UNSPECIFIED"])
def test_an_effect_that_we_do_not_know_is_destructive(text: str) -> None:
    assert read(text).effect == options.EFFECT_DESTRUCTIVE


def test_a_cost_and_a_stage_that_we_do_not_know_are_the_worst() -> None:
    assert read("cost: 9").options.cost == options.COST_HIGH
    service = ServiceDescriptorProto(name="Tickets")
    service.options.Extensions[options.tool].lifecycle.stage = 9  # type: ignore[assignment]  # a value of tomorrow
    assert read_tool(service).lifecycle.stage == options.STAGE_EXPERIMENTAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deadline {seconds: 5}", timedelta(seconds=5)),
        ("deadline {nanos: 500000000}", timedelta(seconds=0.5)),
        ("deadline {seconds: 3600}", CALL_CAP),
        ("deadline {seconds: 315576000000}", CALL_CAP),
        ("deadline {nanos: 1}", timedelta(milliseconds=1)),
        ("deadline {seconds: -1}", timedelta(seconds=30)),
        ("max_duration {seconds: 5}", timedelta(seconds=30)),
    ],
)
def test_a_call_has_a_deadline_below_the_meshs_own(text: str, expected: timedelta) -> None:
    assert read(text).deadline == expected


@pytest.mark.parametrize(
    ("text", "longest", "idle"),
    [
        ("", timedelta(hours=1), timedelta(minutes=5)),
        ("deadline {seconds: 5}", timedelta(hours=1), timedelta(minutes=5)),
        ("max_duration {seconds: 5} idle_timeout {seconds: 2}", timedelta(seconds=5), timedelta(seconds=2)),
        ("max_duration {nanos: 1} idle_timeout {nanos: 1}", timedelta(milliseconds=1), timedelta(milliseconds=1)),
        ("max_duration {seconds: 999999} idle_timeout {seconds: 999999}", STREAM_CAP, STREAM_CAP),
    ],
)
def test_a_stream_has_a_longest_life_and_a_longest_silence(text: str, longest: timedelta, idle: timedelta) -> None:
    sheet = read(text, streams=True)
    assert (sheet.deadline, sheet.idle) == (longest, idle)


@pytest.mark.parametrize(
    ("effect", "level", "expected"),
    [
        (options.EFFECT_READ, MethodOptions.IDEMPOTENCY_UNKNOWN, True),
        (options.EFFECT_WRITE, MethodOptions.IDEMPOTENCY_UNKNOWN, False),
        (options.EFFECT_WRITE, MethodOptions.IDEMPOTENT, True),
        (options.EFFECT_UNSPECIFIED, MethodOptions.NO_SIDE_EFFECTS, True),
    ],
)
def test_what_reads_or_says_so_is_idempotent(
    effect: options.Effect.ValueType, level: MethodOptions.IdempotencyLevel.ValueType, *, expected: bool
) -> None:
    definition = method()
    definition.options.Extensions[options.method].effect = effect
    definition.options.idempotency_level = level
    assert read_method(definition, NONE).idempotent is expected


def test_what_the_mesh_file_grants_stands_for_the_effect() -> None:
    assert read_method(method(), NONE, granted="read").effect == options.EFFECT_READ


def test_a_sheet_has_a_name_even_if_the_contract_gives_none() -> None:
    service = ServiceDescriptorProto(name="Tickets")
    assert not has_sheet(service)
    service.options.Extensions[options.tool].domain = "support"
    assert has_sheet(service)
    assert read_tool(service).name == "Tickets"


TYPES = """
  name: "t.proto" package: "t" syntax: "proto3"
  message_type { name: "Empty" }
  message_type { name: "Open" extension_range { start: 100 end: 200 } }
  message_type { name: "Bare" field { name: "a" number: 1 type: TYPE_STRING } }
  message_type { name: "Public" field { name: "a" number: 1 type: TYPE_STRING
    options { [llmesh.api.options.v1.field] { data_class: DATA_CLASS_PUBLIC } } } }
  message_type { name: "Strange" field { name: "a" number: 1 type: TYPE_STRING
    options { [llmesh.api.options.v1.field] { data_class: 77 } } } }
  message_type { name: "Tree"
    field { name: "left" number: 1 type: TYPE_MESSAGE type_name: ".t.Tree" }
    field { name: "leaf" number: 2 type: TYPE_MESSAGE type_name: ".t.Public" } }
  message_type { name: "Spoken" field { name: "a" number: 1 type: TYPE_MESSAGE type_name: ".t.Bare"
    options { [llmesh.api.options.v1.field] { data_class: DATA_CLASS_PII } } } }
  message_type { name: "Both"
    field { name: "a" number: 1 type: TYPE_MESSAGE type_name: ".t.Spoken" }
    field { name: "b" number: 2 type: TYPE_MESSAGE type_name: ".t.Bare" } }
  message_type { name: "Map"
    nested_type { name: "E" options { map_entry: true }
      field { name: "key" number: 1 type: TYPE_STRING }
      field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".t.Public" } }
    field { name: "m" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".t.Map.E" } }
  message_type { name: "Words"
    nested_type { name: "E" options { map_entry: true }
      field { name: "key" number: 1 type: TYPE_STRING }
      field { name: "value" number: 2 type: TYPE_STRING } }
    field { name: "m" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".t.Words.E" } }
"""


@pytest.mark.parametrize(
    ("name", "classes", "unclassified"),
    [
        ("Empty", (), False),
        ("Open", (), True),
        ("Bare", (), True),
        ("Public", ("public",), False),
        ("Strange", ("secret",), False),
        ("Tree", ("public",), False),
        ("Spoken", ("pii",), False),
        ("Both", ("pii",), True),
        ("Map", ("public",), False),
        ("Words", (), True),
        ("Missing", (), True),
    ],
)
def test_classes_are_those_of_all_fields_within(name: str, classes: tuple[str, ...], *, unclassified: bool) -> None:
    types = messages([text_format.Parse(TYPES, FileDescriptorProto())])
    assert DataClasses(types).of(f".t.{name}") == (classes, unclassified)


def test_classes_of_request_and_response_are_put_together() -> None:
    types = messages([text_format.Parse(TYPES, FileDescriptorProto())])
    assert DataClasses(types).of(".t.Public", ".t.Spoken") == (("pii", "public"), False)


class CountedTypes(dict[str, DescriptorProto]):
    """Types that count how often one is looked up."""

    count = 0

    def get(self, key: str, default: object = None) -> Any:
        self.count += 1
        return super().get(key, default)


def test_a_message_is_read_once_however_many_methods_lead_to_it() -> None:
    file = FileDescriptorProto(package="t")
    for number in range(100):
        field = file.message_type.add(name=f"M{number}").field.add(name="next", number=1)
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".t.M{(number + 1) % 100}"
    types = CountedTypes(messages([file]))
    classes = DataClasses(types)
    assert {classes.of(f".t.M{number}") for number in range(100)} == {((), False)}
    assert types.count == 100


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)), max_size=25),
    st.permutations(range(10)),
)
def test_what_was_asked_before_changes_no_answer(fields: list[tuple[int, int, int]], order: list[int]) -> None:
    file = FileDescriptorProto(package="t", message_type=[DescriptorProto(name=f"M{number}") for number in range(10)])
    for holder, held, data_class in fields:
        field = file.message_type[holder].field.add(name="a", type=FieldDescriptorProto.TYPE_STRING)
        if held != holder:
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".t.M{held}"
        field.options.Extensions[options.field].data_class = options.DataClass.ValueType(data_class)
    types = messages([file])
    shared = DataClasses(types)
    for number in order:
        assert shared.of(f".t.M{number}") == DataClasses(types).of(f".t.M{number}")
