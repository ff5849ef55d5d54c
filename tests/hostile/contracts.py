"""Contracts that strain whoever reads them: right ones that are odd, and wrong ones."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import Edition, FeatureSet, FieldDescriptorProto, FileDescriptorProto

from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.discovery.world import add_message, contract

DOMAIN = "testing"
OPTIONS = "llmesh/api/options/v1/options.proto"
# No number of ours: an option that the mesh does not know.
UNKNOWN_OPTION = b"\xc2\xc5\x18\x05hello"  # field 50088, of bytes


def package(case: str) -> str:
    """The package of a case's services."""
    return f"acme.testing.{case}.v1"


def tool_file(case: str, service: str = "Bad", **facts: object) -> FileDescriptorProto:
    """A file with one service of one method, Get, that everyone may call."""
    file = contract(package(case), service, domain=DOMAIN, **facts)  # pyright: ignore[reportArgumentType] - passed on
    file.service[0].method[0].options.Extensions[options.method].effect = options.EFFECT_READ
    return file


def plain_file(case: str, name: str, *imports: str) -> FileDescriptorProto:
    """A file that defines nothing."""
    return FileDescriptorProto(name=name, package=package(case), syntax="proto3", dependency=imports)


def hold(file: FileDescriptorProto, type_name: str, *, number: int = 90) -> FileDescriptorProto:
    """The same with a field of a type in its request."""
    file.message_type[0].field.add(
        name=f"held_{number}",
        number=number,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{type_name}",
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    return file


def many_services(case: str, count: int) -> FileDescriptorProto:
    """One file with so many services."""
    file = tool_file(case, "Good")
    for number in range(count - 1):
        file.service.add().CopyFrom(file.service[0])
        file.service[-1].name = f"Good{number}"
    return file


def large(case: str, size_bytes: int, *, part_bytes: int = 1_000_000) -> list[FileDescriptorProto]:
    """A service that imports files of so many bytes in all."""
    parts: list[FileDescriptorProto] = []
    for number in range(-(-size_bytes // part_bytes)):
        part = plain_file(case, f"{case}/part{number}.proto")
        enum = part.enum_type.add(name=f"Part{number}")
        for value in range(part_bytes // 240):
            enum.value.add(name=f"PART{number}_{value:0>220}", number=value)
        parts.append(part)
    return [tool_file(case, imports=[part.name for part in parts]), *parts]


def dense(case: str, size_bytes: int, *, part_bytes: int = 1_000_000) -> list[FileDescriptorProto]:
    """A service that imports files of so many bytes in all, which define as much as fits into them."""
    parts: list[FileDescriptorProto] = []
    for number in range(-(-size_bytes // part_bytes)):
        part = plain_file(case, f"{case}/part{number}.proto")
        # A message of seven letters takes 11 bytes.
        for message in range(part_bytes // 11):
            part.message_type.add(name=f"M{number}{message:05x}")
        parts.append(part)
    return [tool_file(case, imports=[part.name for part in parts]), *parts]


def old_syntax(case: str) -> FileDescriptorProto:
    """proto2 with a group, a default, a required field, extensions, and ranges for more of them."""
    file = tool_file(case)
    file.ClearField("syntax")
    request = file.message_type[0]
    group = request.nested_type.add(name="Part")
    group.field.add(name="x", number=1, type=FieldDescriptorProto.TYPE_INT32, label=1, default_value="-7")
    request.field.add(
        name="part",
        number=5,
        type=FieldDescriptorProto.TYPE_GROUP,
        type_name=f".{package(case)}.BadRequest.Part",
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    request.field.add(name="must", number=6, type=FieldDescriptorProto.TYPE_STRING, label=2)
    request.extension_range.add(start=100, end=536870912)
    file.extension.add(
        name="colour",
        number=100,
        type=FieldDescriptorProto.TYPE_STRING,
        label=1,
        extendee=f".{package(case)}.BadRequest",
    )
    return file


def in_edition(case: str, edition: Edition.ValueType) -> FileDescriptorProto:
    """A file of an edition, with a feature that is not the edition's default."""
    file = tool_file(case)
    file.syntax, file.edition = "editions", edition
    file.options.features.field_presence = FeatureSet.IMPLICIT
    return file


def own_option(case: str) -> list[FileDescriptorProto]:
    """An option of the tool's own, set on service, method and field, by its number alone."""
    extending = plain_file(case, f"{case}/option.proto", "google/protobuf/descriptor.proto")
    for kind in ("Service", "Method", "Field"):
        extending.extension.add(
            name=f"note_{kind.lower()}",
            number=50088,
            type=FieldDescriptorProto.TYPE_BYTES,
            label=1,
            extendee=f".google.protobuf.{kind}Options",
        )
    file = tool_file(case, imports=[extending.name])
    file.service[0].options.MergeFromString(UNKNOWN_OPTION)
    file.service[0].method[0].options.MergeFromString(UNKNOWN_OPTION)
    file.message_type[0].field[0].options.MergeFromString(UNKNOWN_OPTION)
    return [file, extending]


def broken_option(case: str) -> bytes:
    """A file whose service X has our option, 51700, with bytes that are no message: a text of 127 bytes in 1."""
    service = b"\x0a\x01X" + b"\x1a\x07" + b"\xa2\x9f\x19\x03" + b"\x0a\x7f\x01"
    return tool_file(case).SerializeToString() + b"\x32\x0c" + service


def nested(case: str, depth: int) -> bytes:
    """A file with messages within messages, deeper than anybody reads."""
    message = b"\x0a\x01M"
    for _ in range(depth):
        message = b"\x0a\x01M\x1a" + _varint(len(message)) + message
    return tool_file(case).SerializeToString() + b"\x22" + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    parts: list[int] = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def recursive(case: str) -> FileDescriptorProto:
    """Messages that hold themselves and each other."""
    file = tool_file(case)
    name = package(case)
    hold(file, f"{name}.BadRequest")
    hold(file, f"{name}.Node", number=91)
    add_message(file, "Node", ["id"])
    file.message_type[-1].field.add(
        name="back", number=9, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=f".{name}.BadRequest", label=3
    )
    return file


def redefined(case: str, owner: str, message: str) -> list[FileDescriptorProto]:
    """A contract with a type of another's package, under a path of its own and not as its owner has it."""
    theirs = FileDescriptorProto(name=f"{case}/theirs.proto", package=owner, syntax="proto3")
    add_message(theirs, message, ["evil"])
    return [hold(tool_file(case, imports=[theirs.name]), f"{owner}.{message}"), theirs]


def with_text(case: str, **texts: str) -> FileDescriptorProto:
    """A file whose tool says something of itself."""
    file = tool_file(case)
    sheet = file.service[0].options.Extensions[options.tool]
    for name, text in texts.items():
        setattr(sheet, name, text)
    return file


def with_label(case: str, key: str, value: str) -> FileDescriptorProto:
    """A file whose tool has a label."""
    file = tool_file(case)
    file.service[0].options.Extensions[options.tool].labels[key] = value
    return file


def with_method(case: str, name: str) -> FileDescriptorProto:
    """A file whose service has a method of that name."""
    file = tool_file(case)
    file.service[0].method[0].name = name
    return file


def in_package(name: str, *, domain: str) -> FileDescriptorProto:
    """A file with a service Bad in any package, of any domain by its own word."""
    return contract(name, "Bad", domain=domain)


def reversed_order(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The files, importers first."""
    return list(files)[::-1]
