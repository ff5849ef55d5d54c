"""How .proto source may name a thing, given what else is in sight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pb2 as pb


@dataclass(frozen=True, slots=True)
class Names:
    """Every full name of a set of files, packages and their parts included."""

    known: frozenset[str]

    @classmethod
    def of(cls, files: Iterable[pb.FileDescriptorProto]) -> Names:
        """The names that these files define."""
        return cls(frozenset(name for file in files for name in _of_file(file)))

    def shortest(self, full_name: str, scope: str) -> str:
        """The shortest way to write full_name inside scope that means just that.

        A leading dot where nothing else does. Scopes are searched from the
        inside out for the first part of a name, and the first hit counts:
        descriptor.proto, "C++-like scoping rules".
        """
        parts = full_name.split(".")
        for length in range(1, len(parts) + 1):
            written = ".".join(parts[-length:])
            if self._meaning(written, scope) == full_name:
                return written
        return f".{full_name}"

    def _meaning(self, written: str, scope: str) -> str:
        first = written.partition(".")[0]
        around = scope
        while True:
            if (f"{around}.{first}" if around else first) in self.known:
                return f"{around}.{written}" if around else written
            if not around:
                return ""
            around = around.rpartition(".")[0]


def _of_file(file: pb.FileDescriptorProto) -> Iterator[str]:
    parts = file.package.split(".") if file.package else []
    yield from (".".join(parts[: length + 1]) for length in range(len(parts)))
    prefix = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _of_message(message, prefix)
    for enum in file.enum_type:
        yield from _of_enum(enum, prefix)
    yield from (f"{prefix}{field.name}" for field in file.extension)
    for service in file.service:
        yield f"{prefix}{service.name}"
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)


def _of_message(message: pb.DescriptorProto, prefix: str) -> Iterator[str]:
    yield f"{prefix}{message.name}"
    inner = f"{prefix}{message.name}."
    for members in (message.field, message.extension, message.oneof_decl):
        yield from (f"{inner}{member.name}" for member in members)
    for nested in message.nested_type:
        yield from _of_message(nested, inner)
    for enum in message.enum_type:
        yield from _of_enum(enum, inner)


def _of_enum(enum: pb.EnumDescriptorProto, prefix: str) -> Iterator[str]:
    yield f"{prefix}{enum.name}"
    yield from (f"{prefix}{value.name}" for value in enum.value)
