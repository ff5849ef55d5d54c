"""The types that a set of files defines, by full name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

__all__ = ["declared", "enums", "full_name", "meaning", "messages", "relative_names", "service_in"]


def full_name(scope: str, name: str) -> str:
    """The name of what a package or a type defines; of a package without a name, the name itself."""
    return f"{scope}.{name}" if scope else name


def messages(files: Iterable[FileDescriptorProto]) -> dict[str, DescriptorProto]:
    """Every message, nested ones too, by full name without a leading dot."""
    found: dict[str, DescriptorProto] = {}
    for file in files:
        waiting = [(full_name(file.package, each.name), each) for each in file.message_type]
        while waiting:
            name, message = waiting.pop()
            found[name] = message
            waiting.extend((f"{name}.{each.name}", each) for each in message.nested_type)
    return found


def declared(file: FileDescriptorProto) -> dict[str, str]:
    """Fingerprints of the file's top-level messages, enums and extensions, by full name.

    For a normalised file: two definitions of one name are identical when their
    fingerprints are equal. The file's syntax and features count, for they
    change what a definition means.
    """
    found: dict[str, str] = {}
    of_all = meaning(file)
    for each in (*file.message_type, *file.enum_type, *file.extension):
        content = of_all + each.SerializeToString(deterministic=True)
        found[full_name(file.package, each.name)] = hashlib.sha256(content).hexdigest()
    return found


def meaning(file: FileDescriptorProto) -> bytes:
    """What a file says of how all that it defines is to be read: its syntax and features."""
    return f"{file.syntax}/{file.edition}/".encode() + file.options.features.SerializeToString(deterministic=True)


def enums(files: Iterable[FileDescriptorProto]) -> dict[str, EnumDescriptorProto]:
    """Every enum, nested ones too, by full name without a leading dot."""
    known = list(files)
    found = {full_name(file.package, each.name): each for file in known for each in file.enum_type}
    for name, message in messages(known).items():
        found.update((f"{name}.{each.name}", each) for each in message.enum_type)
    return found


def service_in(
    files: Iterable[FileDescriptorProto], name: str
) -> tuple[FileDescriptorProto, ServiceDescriptorProto] | None:
    """The service of that full name, and the file that defines it."""
    for file in files:
        for service in file.service:
            if full_name(file.package, service.name) == name:
                return file, service
    return None


def relative_names(file: FileDescriptorProto) -> Iterator[str]:
    """Names of types that are not written in full, as protoc always writes them."""
    for service in file.service:
        for method in service.method:
            yield from (name for name in (method.input_type, method.output_type) if not name.startswith("."))
    yield from _relative_fields(file.extension)
    for message in messages([file]).values():
        yield from _relative_fields(message.field)
        yield from _relative_fields(message.extension)


def _relative_fields(fields: Iterable[FieldDescriptorProto]) -> Iterator[str]:
    for field in fields:
        yield from (name for name in (field.type_name, field.extendee) if name and not name.startswith("."))
