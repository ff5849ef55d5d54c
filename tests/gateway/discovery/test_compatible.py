"""What may change between two contracts of one service that are served beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from gateway.discovery.compatible import Comparison, extends
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.descriptors import link
from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.discovery.mutations import whole_contract
from tests.gateway.discovery.world import add_message

TICKETS = "acme.support.v1.Tickets"
Change = Callable[[FileDescriptorProto], object]


def read(change: Change = lambda _: None) -> Candidate:
    file = whole_contract()
    file.message_type[0].oneof_decl.add(name="either")
    for field in file.message_type[0].field:
        field.oneof_index = 0
    change(file)
    return read_candidate(TICKETS, link(TICKETS, [file]).contract, grant=None)


def add_method(file: FileDescriptorProto) -> None:
    file.service[0].method.add(name="New").CopyFrom(file.service[0].method[0])
    file.service[0].method[-1].name = "New"


def add_field(file: FileDescriptorProto) -> None:
    file.message_type[0].field.add(name="new", number=77, type=FieldDescriptorProto.TYPE_STRING, label=1)


def add_oneof(file: FileDescriptorProto) -> None:
    add_field(file)
    file.message_type[0].oneof_decl.add(name="another")
    file.message_type[0].field[-1].oneof_index = 1


def in_proto2(file: FileDescriptorProto) -> None:
    file.ClearField("syntax")


def proto2_with_required(file: FileDescriptorProto) -> None:
    in_proto2(file)
    add_field(file)
    file.message_type[0].field[-1].label = FieldDescriptorProto.LABEL_REQUIRED


def tool(file: FileDescriptorProto) -> options.Tool:
    return file.service[0].options.Extensions[options.tool]


def get(file: FileDescriptorProto) -> options.Method:
    return file.service[0].method[0].options.Extensions[options.method]


def classed(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].options.Extensions[options.field].data_class = options.DATA_CLASS_SECRET


def meant(file: FileDescriptorProto) -> None:
    file.message_type[0].field[0].options.Extensions[options.field].meaning = "which one"


ADDS: dict[str, Change] = {
    "a method": add_method,
    "a field": add_field,
    "a message": lambda file: add_message(file, "Newer", ["id"]),
    "a value of an enum": lambda file: file.enum_type[0].value.add(name="KIND_NEW", number=1),
    "another oneof": add_oneof,
}
SAYS: dict[str, Change] = {
    "a summary": lambda file: setattr(tool(file), "summary", "better"),
    "an owner": lambda file: setattr(tool(file), "owner_team", "others"),
    "a meaning": meant,
    "a deadline": lambda file: setattr(get(file).deadline, "seconds", 9),
    "another example": lambda file: get(file).examples.add(request_json="{}"),
}
CHANGES: dict[str, tuple[Change, str]] = {
    "the effect": (lambda file: setattr(get(file), "effect", options.EFFECT_WRITE), "`Get` has other types"),
    "need of approval": (lambda file: setattr(get(file), "needs_approval", True), "`Get` has other types"),
    "hidden": (lambda file: setattr(tool(file), "hidden", True), "`hidden` of the tool differ"),
    "a label": (lambda file: tool(file).labels.update({"tier": "lead"}), "labels"),
    "streaming": (lambda file: setattr(file.service[0].method[0], "server_streaming", True), "`Get` has other types"),
    "a type": (
        lambda file: setattr(file.service[0].method[0], "input_type", ".acme.support.v1.More"),
        "`Get` has other types",
    ),
    "a field's name": (
        lambda file: setattr(file.message_type[0].field[0], "name", "key"),
        "TicketsRequest.id` changed",
    ),
    "a field's type": (
        lambda file: setattr(file.message_type[0].field[0], "type", FieldDescriptorProto.TYPE_BYTES),
        "TicketsRequest.id` changed",
    ),
    "a field's label": (lambda file: setattr(file.message_type[1].field[0], "label", 3), "TicketsResponse.id` changed"),
    "a field's class": (classed, "TicketsRequest.id` changed"),
    "a field's oneof": (
        lambda file: file.message_type[0].field[1].ClearField("oneof_index"),
        "TicketsRequest.title` changed",
    ),
    "an enum's value": (lambda file: setattr(file.enum_type[0].value[0], "name", "KIND_OTHER"), "values of"),
    "syntax": (in_proto2, "another syntax"),
}


@pytest.mark.parametrize("change", ADDS.values(), ids=ADDS)
def test_what_only_adds_can_be_served_beside_what_it_adds_to(change: Change) -> None:
    larger, smaller = read(change), read()
    assert larger.version != smaller.version
    assert extends(larger, smaller) == ""


@pytest.mark.parametrize("change", [add_method, add_field], ids=["a method", "a field"])
def test_what_lacks_something_does_not_add(change: Change) -> None:
    assert extends(read(), read(change)).endswith("is gone")


@pytest.mark.parametrize("change", SAYS.values(), ids=SAYS)
def test_what_only_says_something_else_of_itself_adds_either_way(change: Change) -> None:
    one, other = read(change), read()
    assert one.version != other.version
    assert extends(one, other) == extends(other, one) == ""


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_what_changes_adds_neither_way(change: Change, words: str) -> None:
    one, other = read(change), read()
    assert words in extends(one, other)
    assert extends(other, one) != ""


def test_a_new_field_that_is_required_is_no_addition() -> None:
    assert "is required" in extends(read(proto2_with_required), read(in_proto2))


@pytest.mark.parametrize("start", [99, 100, 101])
def test_what_can_be_extended_less_does_not_add(start: int) -> None:
    def change(file: FileDescriptorProto) -> None:
        file.message_type[0].nested_type[0].extension_range[0].start = start

    found = extends(read(change), read())
    assert ("can be extended no more" in found) is (start > 100)


def without_extensions(file: FileDescriptorProto) -> None:
    file.message_type[0].nested_type[0].ClearField("extension_range")


def test_what_can_be_extended_no_more_does_not_add() -> None:
    assert "can be extended no more" in extends(read(without_extensions), read())
    assert extends(read(), read(without_extensions)) == ""


@pytest.mark.parametrize(
    "carried", [{"unclassified": True, "data_classes": ()}, {"unclassified": False, "data_classes": ("pii", "public")}]
)
def test_what_says_less_of_its_data_does_not_add(carried: dict[str, object]) -> None:
    def saying(said: dict[str, object]) -> Candidate:
        made = read()
        return replace(made, methods=tuple(replace(method, **said) for method in made.methods))  # pyright: ignore[reportArgumentType]

    more, less = saying(carried), saying({"unclassified": False, "data_classes": ("public",)})
    assert "carries no more" in extends(less, more)


def test_a_comparison_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(larger: Candidate, smaller: Candidate) -> str:
        made.append(larger.version)
        return extends(larger, smaller)

    monkeypatch.setattr("gateway.discovery.compatible.extends", counted)
    comparison, larger, smaller = Comparison(), read(add_method), read()
    assert [comparison.extends(larger, smaller) for _ in range(3)] == ["", "", ""]
    assert len(made) == 1
