"""Descriptors that were tampered with: any field of any part of a contract, set to anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st

from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.discovery.world import add_message, contract

HOSTILE = (
    "",
    ".",
    "..",
    "a" * 300,
    "Get/../x",
    "Get\r\nx: y",
    "\x00",
    "é",
    "\u202e",
    "%s%d${x}",
    "{{x}}",
    "*",
    "1a",
    "acme.support.v1",
    "acme.support.v1.Tickets",
    ".acme.support.v1.TicketsRequest",
    ".google.protobuf.Empty",
    "google.protobuf",
    "llmesh/api/options/v1/options.proto",
    "support",
    "proto2",
    "editions",
    "2026-12-01",
    '{"id": "1"}',
    "[" * 2000,
    "Get",
    "Tickets",
)
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=8)
NUMBERS = st.sampled_from([0, 1, 2, -1, 7, 1000, 1001, 19000, 51700, 51701, 536870911, 2**31 - 1, -(2**31)])
WHOLE = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}


def whole_contract() -> FileDescriptorProto:
    """A contract with some of everything that a contract can hold."""
    file = contract(fields=["id", "title"])
    add_message(file, "More", ["id"])
    file.message_type[0].nested_type.add(name="Inner").extension_range.add(start=100, end=200)
    held = file.message_type[1].field.add(name="more", number=9, type=FieldDescriptorProto.TYPE_MESSAGE, label=3)
    held.type_name = ".acme.support.v1.More"
    held.options.Extensions[options.field].data_class = options.DATA_CLASS_PII
    file.enum_type.add(name="Kind").value.add(name="KIND_UNSPECIFIED", number=0)
    method = file.service[0].method[0].options.Extensions[options.method]
    method.effect = options.EFFECT_READ
    method.deadline.seconds = 5
    method.examples.add(summary="one", request_json='{"id": "1"}')
    stream = file.service[0].method.add(name="Follow", server_streaming=True, client_streaming=True)
    stream.input_type = stream.output_type = ".acme.support.v1.More"
    sheet = file.service[0].options.Extensions[options.tool]
    sheet.lifecycle.stage = options.STAGE_STABLE
    sheet.labels["tier"] = "gold"
    return file


@st.composite
def tampered(draw: st.DrawFn) -> list[bytes]:
    """The files of a contract, as sent, each changed in some places."""
    files = [whole_contract(), FileDescriptorProto(name="other.proto", package="acme.support.v1", syntax="proto3")]
    files[0].dependency.append("other.proto")
    for _ in range(draw(st.integers(0, 4))):
        _tamper(draw, draw(st.sampled_from(files[:1] * 5 + files[1:])))
    sent = [file.SerializePartialToString() for file in files]
    if draw(st.integers(0, 3)) == 0:
        content = bytearray(sent[0])
        for _ in range(draw(st.integers(1, 3))):
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        sent[0] = bytes(content)
    return sent


def _tamper(draw: st.DrawFn, file: FileDescriptorProto) -> None:
    part: Any = draw(st.sampled_from(list(_parts(file))))
    fields = list(part.DESCRIPTOR.fields)
    field = draw(st.sampled_from(fields))
    try:
        if draw(st.integers(0, 9)) == 0:
            part.ClearField(field.name)
        elif draw(st.integers(0, 9)) == 0 and part.DESCRIPTOR.name.endswith("Options"):
            part.MergeFromString(draw(st.binary(max_size=12)))
        else:
            _set(draw, part, field)
    except (ValueError, DecodeError, TypeError):
        # The runtime lets nobody write that; it may still come as bytes.
        return


def _set(draw: st.DrawFn, part: Any, field: FieldDescriptor) -> None:
    if field.message_type is not None:
        if not field.is_repeated:
            getattr(part, field.name).SetInParent()
            return
        held = getattr(part, field.name)
        if field.message_type.GetOptions().map_entry:
            held[draw(TEXTS)] = draw(TEXTS)
            return
        if held and draw(st.booleans()):
            held.add().CopyFrom(draw(st.sampled_from(list(held))))
        else:
            held.add()
        return
    value = _value(draw, field)
    if field.is_repeated:
        getattr(part, field.name).append(value)
    else:
        setattr(part, field.name, value)


def _value(draw: st.DrawFn, field: FieldDescriptor) -> object:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.binary(max_size=8))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return draw(TEXTS)
    if field.enum_type is not None:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    if field.cpp_type in WHOLE:
        return draw(NUMBERS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    return draw(st.floats())


def _parts(message: Message) -> Iterator[Message]:
    """The message, and every one in it, our own options too."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                yield from _parts(each)
