"""A contract's options as the mesh reads them.

Unset, unknown and unreadable always mean the most restrictive value, so a
tool that says nothing is treated as one that may do anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)
from google.protobuf.duration_pb2 import Duration

from llmesh.api.options.v1 import options_pb2 as options

__all__ = [
    "CALL_CAP",
    "DATA_CLASSES",
    "SPAN_MIN",
    "STREAM_CAP",
    "DataClasses",
    "MethodSheet",
    "has_sheet",
    "read_method",
    "read_tool",
]

CALL_DEFAULT = timedelta(seconds=30)
CALL_CAP = timedelta(minutes=10)
STREAM_DEFAULT = timedelta(hours=1)
IDLE_DEFAULT = timedelta(minutes=5)
STREAM_CAP = timedelta(hours=24)
CONCURRENCY_DEFAULT = 1024
# The shortest span that Envoy can hold a call to.
SPAN_MIN = timedelta(milliseconds=1)
# Stands among the classes of a message for a field that has none.
_UNCLASSIFIED = ""
# A message by its name, and whether a field that holds it speaks for those of its fields that have no class.
_Node = tuple[str, bool]
# The number of the value in a map's entry.
MAP_VALUE = 2

# Number of a class to its word in rules.
DATA_CLASSES: Mapping[int, str] = {
    options.DATA_CLASS_PUBLIC: "public",
    options.DATA_CLASS_INTERNAL: "internal",
    options.DATA_CLASS_CONFIDENTIAL: "confidential",
    options.DATA_CLASS_PII: "pii",
    options.DATA_CLASS_SECRET: "secret",
}
EFFECTS: Mapping[str, options.Effect.ValueType] = {
    "read": options.EFFECT_READ,
    "write": options.EFFECT_WRITE,
    "destructive": options.EFFECT_DESTRUCTIVE,
}


@dataclass(frozen=True, slots=True)
class MethodSheet:
    """What the mesh holds of one rpc. deadline and idle are capped already.

    idle is None for methods that answer once. options: the method's own, with
    effect and cost never unset.
    """

    effect: int
    idempotent: bool
    deadline: timedelta
    idle: timedelta | None
    max_concurrency: int
    data_classes: tuple[str, ...]
    unclassified: bool
    options: options.Method


def has_sheet(service: ServiceDescriptorProto) -> bool:
    """Whether the contract carries our service option."""
    return service.options.HasExtension(options.tool)


def read_tool(service: ServiceDescriptorProto) -> options.Tool:
    """The product sheet: a name always, a known stage always."""
    sheet = options.Tool()
    sheet.CopyFrom(service.options.Extensions[options.tool])
    sheet.name = sheet.name or service.name
    if sheet.lifecycle.stage not in (options.STAGE_STABLE, options.STAGE_DEPRECATED):
        sheet.lifecycle.stage = options.STAGE_EXPERIMENTAL
    return sheet


def read_method(method: MethodDescriptorProto, classes: DataClasses, *, granted: str | None = None) -> MethodSheet:
    """What the mesh holds of a method.

    classes: of the contract's messages. granted: the effect that the mesh file
    states, for a contract without our options.
    """
    stated = options.Method()
    stated.CopyFrom(method.options.Extensions[options.method])
    if granted is not None:
        stated.effect = EFFECTS[granted]
    if stated.effect not in (options.EFFECT_READ, options.EFFECT_WRITE):
        stated.effect = options.EFFECT_DESTRUCTIVE
    if stated.cost not in (options.COST_LOW, options.COST_MEDIUM):
        stated.cost = options.COST_HIGH
    deadline, idle = _times(stated, streams=method.server_streaming)
    found, unclassified = classes.of(method.input_type, method.output_type)
    safe = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
    return MethodSheet(
        effect=stated.effect,
        idempotent=stated.effect == options.EFFECT_READ or method.options.idempotency_level in safe,
        deadline=deadline,
        idle=idle,
        max_concurrency=stated.max_concurrency or CONCURRENCY_DEFAULT,
        data_classes=found,
        unclassified=unclassified,
        options=stated,
    )


def _times(stated: options.Method, *, streams: bool) -> tuple[timedelta, timedelta | None]:
    if not streams:
        return _span(stated.deadline, default=CALL_DEFAULT, cap=CALL_CAP), None
    longest = _span(stated.max_duration, default=STREAM_DEFAULT, cap=STREAM_CAP)
    return longest, _span(stated.idle_timeout, default=IDLE_DEFAULT, cap=STREAM_CAP)


def _span(stated: Duration, *, default: timedelta, cap: timedelta) -> timedelta:
    """The span, capped. One that is not above zero says nothing, so the default holds.

    Never below SPAN_MIN: what rounds to zero would mean no limit at all.
    """
    seconds = stated.seconds + stated.nanos / 1e9
    return max(SPAN_MIN, timedelta(seconds=min(seconds, cap.total_seconds()))) if seconds > 0 else default


class DataClasses:
    """The classes of data in messages, each message read once however many methods lead to it.

    A field of a message type takes its fields' classes; a class of its own
    also speaks for those of its fields that have none. A type that is not
    among types, and one that others may extend, counts as unclassified.
    """

    def __init__(self, types: Mapping[str, DescriptorProto]) -> None:
        """types: every message of the contract by full name."""
        self._types = types
        self._found: dict[_Node, frozenset[str]] = {}

    def of(self, *roots: str) -> tuple[tuple[str, ...], bool]:
        """Classes of data anywhere in the messages, sorted, and whether any field has none."""
        nodes = [(name, False) for name in roots]
        self._solve(nodes)
        found = frozenset[str]().union(*(self._found[node] for node in nodes))
        return tuple(sorted(found - {_UNCLASSIFIED})), _UNCLASSIFIED in found

    def _solve(self, roots: Iterable[_Node]) -> None:
        found: dict[_Node, set[str]] = {}
        users: dict[_Node, list[_Node]] = {}
        waiting = [node for node in roots if node not in self._found]
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found[node], parts = self._read(node)
            for part in parts:
                if part in self._found:
                    found[node] |= self._found[part]
                else:
                    users.setdefault(part, []).append(node)
                    waiting.append(part)
        # Messages can contain each other, so what is found is handed on until nothing is new.
        changed = list(found)
        while changed:
            node = changed.pop()
            for user in users.get(node, ()):
                if not found[node] <= found[user]:
                    found[user] |= found[node]
                    changed.append(user)
        self._found.update((node, frozenset(classes)) for node, classes in found.items())

    def _read(self, node: _Node) -> tuple[set[str], list[_Node]]:
        """What the message's own fields say, and the messages that they hold."""
        name, spoken_for = node
        message = self._types.get(name.removeprefix("."))
        found: set[str] = set()
        parts: list[_Node] = []
        if (message is None or message.extension_range) and not spoken_for:
            found.add(_UNCLASSIFIED)
        for field in _fields(message):
            stated = _class_of(field)
            if stated:
                found.add(stated)
            if field.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_GROUP):
                parts.append((field.type_name, spoken_for or stated is not None))
            elif stated is None and not spoken_for:
                found.add(_UNCLASSIFIED)
        return found, parts


def _fields(message: DescriptorProto | None) -> Iterable[FieldDescriptorProto]:
    """The fields that carry data; of a map's entry that is its value."""
    if message is None:
        return ()
    return (
        [field for field in message.field if field.number == MAP_VALUE] if message.options.map_entry else message.field
    )


def _class_of(field: FieldDescriptorProto) -> str | None:
    """The field's class in words; None if it has none. One we do not know is secret."""
    number = field.options.Extensions[options.field].data_class
    return None if number == options.DATA_CLASS_UNSPECIFIED else DATA_CLASSES.get(number, "secret")
