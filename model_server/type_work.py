"""What is worked out of the types that callers name. Pure: files and texts in, values out; the workshop's to run.

A piece of work brings the files that its type is from. What was made of them is kept for the next one, so that a call
does not make it for each of its steps, nor callers who ask for the same one each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import protovalidate
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from llmesh.api.options.v1 import options_pb2 as options
from llmesh.errors import InvalidCall, NotFound, Violation
from llmesh.nearest import nearest_type
from llmesh.rules import violations
from llmesh.schema import BadJson, Limits, Schema, SchemaError, read_text, schema_of

__all__ = ["BAD_FILES", "LIMITS", "NAMES", "Fitting", "Looked", "Named", "Read", "look", "read", "unknown", "widest"]

# From the widest: a type is asked for within the first whose longest message the model has room for.
LIMITS = (
    Limits(),
    Limits(string_chars=128, data_bytes=96, items=6, entries=6),
    Limits(string_chars=64, data_bytes=48, items=4, entries=4),
    Limits(string_chars=32, data_bytes=24, key_chars=16, items=3, entries=3, depth=6),
    Limits(string_chars=16, data_bytes=12, key_chars=12, items=2, entries=2, depth=4),
)
# So many types are kept: as many as there are candidates of one choice, which are gone through in turn. What they may
# take of memory is the workshop's to bound.
KEPT = 64
# Among so many names that were sent, none longer than this, the nearest to one that was not is looked for.
NAMES, NAME_CHARS = 1000, 512
# Of files that do not fit together: the field that brings a caller's, and the reason that is told.
FILES, BAD_FILES = "descriptors", "BAD_DESCRIPTORS"


@dataclass(frozen=True, slots=True)
class Named:
    """A message type by its full name, or a method by its path, whose request is meant.

    files: serialized, and all that they import, in any order. field: where the request names it, for errors. sent:
    whether the files are the caller's own.
    """

    files: tuple[bytes, ...]
    name: str
    field: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """A type that can be answered as. type_name: in full. summary: the method's, as its contract has it, or empty."""

    type_name: str
    summary: str


@dataclass(frozen=True, slots=True)
class Fitting:
    """A type's schema, and the bytes of the longest message in it."""

    schema: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Read:
    """The message that a text says, serialized, None if it says none; and what is wrong with it."""

    message: bytes | None
    broken: tuple[Violation, ...]


def look(named: Named) -> Looked:
    """The type, found and found fit.

    Raises NotFound if it isn't there, and InvalidCall if the files do not fit together, or if the type has no schema,
    or rules that are none.
    """
    typed = _typed(named)
    return Looked(typed.descriptor.full_name, typed.summary)


def widest(named: Named, room: int) -> Fitting:
    """The schema within the widest limits whose longest message fits the room, in tokens; else the narrowest."""
    typed = _typed(named)
    schema = typed.schema(LIMITS[0])
    for limits in LIMITS:
        schema = typed.schema(limits)
        if schema.max_bytes < room:
            break
    return Fitting(schema.text, schema.max_bytes)


def read(named: Named, text: str) -> Read:
    """The message that a text says, if it says one, and what of it breaks the type's rules."""
    typed = _typed(named)
    try:
        message = read_text(text, typed.descriptor, last_of_repeated=True)
    except BadJson as err:
        return Read(None, (Violation("", str(err)),))
    return Read(message.SerializeToString(), typed.broken(message))


def unknown(name: str) -> NotFound:
    """What is told of a type or method in the same words whether there is none, or none that the caller sees."""
    return _not_found(name, "that you see")


def _not_found(name: str, where: str) -> NotFound:
    kind = "method" if "/" in name else "message type"
    return NotFound(f"there is no {kind} `{name}` {where}", resource=(kind, name), reason="UNKNOWN_TYPE")


class _Typed:
    """A type, its rules, and those of its schemas that were asked for."""

    def __init__(self, descriptor: Descriptor, *, field: str, summary: str) -> None:
        self.descriptor = descriptor
        self.summary = summary
        self._field = field
        # One of its own: another type of the same name, which another caller has sent, would stand in its way.
        self._validator = protovalidate.Validator()
        self._schemas: dict[Limits, Schema] = {}
        self.schema(LIMITS[0])
        self._compile()

    def schema(self, limits: Limits) -> Schema:
        """The schema within some limits."""
        if limits not in self._schemas:
            try:
                self._schemas[limits] = schema_of(self.descriptor, limits)
            except SchemaError as err:
                raise _wrong(self._field, str(err), reason="NO_SCHEMA") from err
        return self._schemas[limits]

    def broken(self, message: Message) -> tuple[Violation, ...]:
        """What of a message breaks the type's rules."""
        try:
            return violations(self._validator, message)
        except protovalidate.EvaluationError as err:
            words = f"a rule of `{self.descriptor.full_name}` fails: {err}"
            raise _wrong(self._field, words, reason="BAD_RULES") from err

    def _compile(self) -> None:
        for each in _reachable(self.descriptor):
            try:
                violations(self._validator, message_factory.GetMessageClass(each)())
            except protovalidate.EvaluationError:
                # Of an empty message that need not mean anything.
                continue
            except (protovalidate.CompilationError, ValueError) as err:
                words = f"the rules of `{self.descriptor.full_name}` do not compile: {err}"
                raise _wrong(self._field, words, reason="BAD_RULES") from err


def _reachable(descriptor: Descriptor) -> Iterable[Descriptor]:
    """The type and all that its messages may hold. Of a repeated field, protovalidate compiles where there is one."""
    found, waiting = dict[str, Descriptor](), [descriptor]
    while waiting:
        each = waiting.pop()
        if each.full_name not in found:
            found[each.full_name] = each
            waiting.extend(field.message_type for field in each.fields if field.message_type is not None)
    return [each for each in found.values() if not each.GetOptions().map_entry]


@functools.lru_cache(maxsize=KEPT)
def _typed(named: Named) -> _Typed:
    pool = _pool(named.files)
    service, is_method, name = named.name.partition("/")
    try:
        if not is_method:
            return _Typed(pool.FindMessageTypeByName(named.name), field=named.field, summary="")
        method = pool.FindServiceByName(service).methods_by_name[name]
    except KeyError as err:
        raise (_not_sent(named) if named.sent else unknown(named.name)) from err
    return _Typed(method.input_type, field=named.field, summary=_summary(method))


def _not_sent(named: Named) -> NotFound:
    """What is told of a type or method that the caller's own files do not have."""
    if not named.files:
        return _not_found(named.name, f"in `{FILES}`, which has no file: leave that out for one of the mesh")
    files = map(FileDescriptorProto.FromString, named.files)
    names = (each for file in files for each in _names(file, methods="/" in named.name) if len(each) <= NAME_CHARS)
    near = nearest_type(named.name, frozenset(islice(names, NAMES)))
    return _not_found(named.name, f"in the files that were sent{near}")


def _names(file: FileDescriptorProto, *, methods: bool) -> Iterator[str]:
    """Full names of a file's messages, or the paths of its methods."""
    package = f"{file.package}." if file.package else ""
    if methods:
        return (f"{package}{service.name}/{method.name}" for service in file.service for method in service.method)
    return _messages(file.message_type, package)


def _messages(messages: Iterable[DescriptorProto], scope: str) -> Iterator[str]:
    for each in messages:
        if not each.options.map_entry:
            yield f"{scope}{each.name}"
        yield from _messages(each.nested_type, f"{scope}{each.name}.")


def _summary(method: MethodDescriptor) -> str:
    # Its own pool's options know no extension: read again, ours are found.
    stated = MethodOptions.FromString(method.GetOptions().SerializeToString())
    return stated.Extensions[options.method].summary


def _pool(files: Iterable[bytes]) -> DescriptorPool:
    pool = DescriptorPool()
    for file in _imports_first(files):
        try:
            pool.Add(file)
        except TypeError as err:
            raise _wrong(FILES, f"`{file.name}` does not fit the others: {err}", reason=BAD_FILES) from err
    return pool


def _imports_first(files: Iterable[bytes]) -> Iterator[FileDescriptorProto]:
    try:
        waiting = [FileDescriptorProto.FromString(each) for each in files]
    except DecodeError as err:
        raise _wrong(FILES, "one is no file", reason=BAD_FILES) from err
    while waiting:
        names = {file.name for file in waiting}
        free = [file for file in waiting if not names.intersection(file.dependency)]
        if not free:
            words = f"`{waiting[0].name}` and others import each other"
            raise _wrong(FILES, words, reason=BAD_FILES)
        yield from free
        waiting = [file for file in waiting if names.intersection(file.dependency)]


def _wrong(field: str, words: str, *, reason: str) -> InvalidCall:
    return InvalidCall(f"`{field}`: {words}", [Violation(field, words)], reason=reason)
