"""Descriptors back to .proto source, so that a team gets a contract it can compile.

What compiles to the same descriptors comes out; comments and layout don't
survive compilation. One function per kind of thing, each giving its lines.
"""

from __future__ import annotations

__all__ = ["SourceError", "render"]

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from google.protobuf import descriptor_pb2 as pb
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from llmesh._proto_names import Names
from llmesh._proto_options import SourceError, known_options, option_text, quoted

Lines = Iterator[str]

LINE_LENGTH = 100
# Ends of ranges: a message's are exclusive, an enum's inclusive.
FIELD_NUMBER_END = 2**29
ENUM_NUMBER_LAST = 2**31 - 1
EDITIONS = {pb.EDITION_2023: "2023"}
LABELS = {
    pb.FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    pb.FieldDescriptorProto.LABEL_REQUIRED: "required ",
    pb.FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}
NAMED_TYPES = (
    pb.FieldDescriptorProto.TYPE_MESSAGE,
    pb.FieldDescriptorProto.TYPE_ENUM,
    pb.FieldDescriptorProto.TYPE_GROUP,
)


def render(files: Sequence[pb.FileDescriptorProto], pool: DescriptorPool) -> dict[str, str]:
    """The source of each file, by its name. pool holds them and all they import.

    Raises SourceError if one uses what cannot be written down, or an option
    that the pool doesn't know.
    """
    names = Names.of(files)
    return {file.name: "\n".join(_Writer(file, pool, names).lines()) + "\n" for file in files}


def _block(head: str, body: Iterable[str]) -> Lines:
    inner = list(body)
    if not inner:
        yield f"{head} {{}}"
        return
    yield f"{head} {{"
    yield from (f"  {line}" if line else "" for line in inner)
    yield "}"


def _spaced(parts: Iterable[Iterable[str]]) -> Lines:
    """The parts that have lines, an empty line between each two."""
    between = False
    for part in parts:
        lines = list(part)
        if lines and between:
            yield ""
        yield from lines
        between = between or bool(lines)


def _range(first: int, last: int, most: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == most else last}"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one file: knows its syntax, its types and its options. scope: full name of what is around."""

    file: pb.FileDescriptorProto
    pool: DescriptorPool
    names: Names

    def lines(self) -> Lines:
        file = self.file
        return _spaced(
            [
                [self.syntax()],
                [f"package {file.package};"] if file.package else [],
                self.imports(),
                self.option_lines(file.options, file.package),
                self.extensions(file.extension, file.package),
                *(self.enum(enum, file.package) for enum in file.enum_type),
                *self.messages(file.message_type, file.extension, file.package),
                *(self.service(service) for service in file.service),
            ]
        )

    def syntax(self) -> str:
        if self.file.syntax != "editions":
            return f'syntax = "{self.file.syntax or "proto2"}";'
        if self.file.edition not in EDITIONS:
            raise SourceError(f"`{self.file.name}` is of an edition that is not known here")
        return f'edition = "{EDITIONS[self.file.edition]}";'

    def imports(self) -> Lines:
        for at, name in enumerate(self.file.dependency):
            kind = (
                "public " if at in self.file.public_dependency else "weak " if at in self.file.weak_dependency else ""
            )
            yield f"import {kind}{quoted(name)};"

    def options(self, options: Message, scope: str, *, leave_out: Sequence[str] = ()) -> list[str]:
        """Each option as `name = value`; scope: the full name of what has them."""
        known = known_options(options, self.pool)
        found: list[str] = []
        for field, value in known.ListFields():
            if not field.is_extension and field.name in leave_out:
                continue
            name = f"({self.names.shortest(field.full_name, scope)})" if field.is_extension else field.name
            found += [f"{name} = {text}" for text in option_text(field, value)]
        return found

    def option_lines(self, options: Message, scope: str, *, leave_out: Sequence[str] = ()) -> Lines:
        for option in self.options(options, scope, leave_out=leave_out):
            yield from f"option {option};".splitlines()

    def message(self, message: pb.DescriptorProto, scope: str) -> Lines:
        return _block(f"message {message.name}", self.message_body(message, _join(scope, message.name)))

    def messages(
        self, messages: Iterable[pb.DescriptorProto], fields: Iterable[pb.FieldDescriptorProto], scope: str
    ) -> Iterator[Lines]:
        """The messages, save groups and map entries: those are written where their fields are."""
        inline = {field.type_name for field in fields if self.is_group(field)}
        for message in messages:
            if not message.options.map_entry and f".{_join(scope, message.name)}" not in inline:
                yield self.message(message, scope)

    def message_body(self, message: pb.DescriptorProto, scope: str) -> Lines:
        return _spaced(
            [
                self.option_lines(message.options, scope, leave_out=("map_entry",)),
                self.reserved(
                    message.reserved_name, [(r.start, r.end - 1) for r in message.reserved_range], FIELD_NUMBER_END - 1
                ),
                self.extension_ranges(message, scope),
                *(self.enum(enum, scope) for enum in message.enum_type),
                *self.messages(message.nested_type, (*message.field, *message.extension), scope),
                self.fields(message, scope),
                self.extensions(message.extension, scope, nested=message.nested_type),
            ]
        )

    def fields(self, message: pb.DescriptorProto, scope: str) -> Lines:
        """Fields in their order, a oneof where its first field is."""
        written: set[int] = set()
        for field in message.field:
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield from self.field(field, scope, nested=message.nested_type)
            elif field.oneof_index not in written:
                written.add(field.oneof_index)
                yield from self.oneof(message, field.oneof_index, scope)

    def oneof(self, message: pb.DescriptorProto, index: int, scope: str) -> Lines:
        oneof = message.oneof_decl[index]
        body = list(self.option_lines(oneof.options, _join(scope, oneof.name)))
        for field in message.field:
            if field.HasField("oneof_index") and field.oneof_index == index:
                body += self.field(field, scope, nested=message.nested_type, label="")
        return _block(f"oneof {oneof.name}", body)

    def field(
        self,
        field: pb.FieldDescriptorProto,
        scope: str,
        *,
        nested: Sequence[pb.DescriptorProto],
        label: str | None = None,
    ) -> Lines:
        options = self.field_options(field, scope)
        entry = self.map_entry(field, nested, scope)
        if entry:
            key, value = (self.type(part, scope) for part in entry.field)
            return _statement(f"map<{key}, {value}> {field.name} = {field.number}", options)
        shown = self.label(field) if label is None else label
        if self.is_group(field):
            group = next(one for one in nested if field.type_name == f".{_join(scope, one.name)}")
            tail = f" [{', '.join(options)}]" if options else ""
            head = f"{shown}group {group.name} = {field.number}{tail}"
            return _block(head, self.message_body(group, _join(scope, group.name)))
        return _statement(f"{shown}{self.type(field, scope)} {field.name} = {field.number}", options)

    def label(self, field: pb.FieldDescriptorProto) -> str:
        implied = self.file.syntax in ("proto3", "editions") and field.label == pb.FieldDescriptorProto.LABEL_OPTIONAL
        return "" if implied and not field.proto3_optional else LABELS[field.label]

    def is_group(self, field: pb.FieldDescriptorProto) -> bool:
        return field.type == pb.FieldDescriptorProto.TYPE_GROUP and self.file.syntax != "editions"

    def map_entry(
        self, field: pb.FieldDescriptorProto, nested: Sequence[pb.DescriptorProto], scope: str
    ) -> pb.DescriptorProto | None:
        return next(
            (one for one in nested if one.options.map_entry and field.type_name == f".{_join(scope, one.name)}"), None
        )

    def type(self, field: pb.FieldDescriptorProto, scope: str) -> str:
        if field.type in NAMED_TYPES:
            return self.names.shortest(field.type_name.removeprefix("."), scope)
        return pb.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()

    def field_options(self, field: pb.FieldDescriptorProto, scope: str) -> list[str]:
        found: list[str] = []
        if field.HasField("default_value"):
            found.append(f"default = {_default(field)}")
        if field.json_name not in ("", _json_name(field.name)) and not field.extendee:
            found.append(f"json_name = {quoted(field.json_name)}")
        return found + self.options(field.options, _join(scope, field.name))

    def extensions(
        self, extensions: Iterable[pb.FieldDescriptorProto], scope: str, *, nested: Sequence[pb.DescriptorProto] = ()
    ) -> Lines:
        """Fields that extend messages, those of one message that follow each other in one block."""
        around = nested or (self.file.message_type if scope == self.file.package else ())
        return _spaced(
            _block(
                f"extend {self.names.shortest(extendee.removeprefix('.'), scope)}",
                [line for field in fields for line in self.field(field, scope, nested=around)],
            )
            for extendee, fields in groupby(extensions, key=lambda field: field.extendee)
        )

    def extension_ranges(self, message: pb.DescriptorProto, scope: str) -> Lines:
        for one in message.extension_range:
            head = f"extensions {_range(one.start, one.end - 1, FIELD_NUMBER_END - 1)}"
            yield from _statement(head, self.options(one.options, scope))

    def reserved(self, names: Iterable[str], ranges: Iterable[tuple[int, int]], most: int) -> Lines:
        numbers = ", ".join(_range(first, last, most) for first, last in ranges)
        if numbers:
            yield f"reserved {numbers};"
        words = ", ".join(name if self.file.syntax == "editions" else quoted(name) for name in names)
        if words:
            yield f"reserved {words};"

    def enum(self, enum: pb.EnumDescriptorProto, scope: str) -> Lines:
        full = _join(scope, enum.name)
        body = list(self.option_lines(enum.options, full))
        body += self.reserved(enum.reserved_name, [(r.start, r.end) for r in enum.reserved_range], ENUM_NUMBER_LAST)
        for value in enum.value:
            # A value's scope is its enum's: values are siblings of their enum.
            body += _statement(f"{value.name} = {value.number}", self.options(value.options, _join(scope, value.name)))
        return _block(f"enum {enum.name}", body)

    def service(self, service: pb.ServiceDescriptorProto) -> Lines:
        full = _join(self.file.package, service.name)
        methods = [line for method in service.method for line in self.method(method, full)]
        return _block(f"service {service.name}", _spaced([self.option_lines(service.options, full), methods]))

    def method(self, method: pb.MethodDescriptorProto, scope: str) -> Lines:
        takes, gives = (
            ("stream " if streams else "") + self.names.shortest(name.removeprefix("."), scope)
            for streams, name in (
                (method.client_streaming, method.input_type),
                (method.server_streaming, method.output_type),
            )
        )
        head = f"rpc {method.name}({takes}) returns ({gives})"
        options = list(self.option_lines(method.options, _join(scope, method.name)))
        return _block(head, options) if options else iter([f"{head};"])


def _statement(head: str, options: Sequence[str]) -> Lines:
    """`head [options];`, on one line if that is short."""
    if not options:
        yield f"{head};"
        return
    line = f"{head} [{', '.join(options)}];"
    if "\n" not in line and len(line) <= LINE_LENGTH:
        yield line
        return
    yield f"{head} ["
    for at, option in enumerate(options):
        end = "," if at < len(options) - 1 else ""
        yield from (f"  {part}" for part in f"{option}{end}".splitlines())
    yield "];"


def _default(field: pb.FieldDescriptorProto) -> str:
    if field.type == pb.FieldDescriptorProto.TYPE_STRING:
        return quoted(field.default_value)
    if field.type == pb.FieldDescriptorProto.TYPE_BYTES:
        # Already escaped, as descriptor.proto says.
        return f'"{field.default_value}"'
    return field.default_value


def _json_name(name: str) -> str:
    """What protoc makes of a field's name: underscores go, the letter after one is upper case."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
