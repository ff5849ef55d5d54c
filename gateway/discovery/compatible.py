"""Whether one contract of a service only adds to another, so that endpoints of both can serve at once.

What governs a call must be the same in both: the larger one's facts stand for
all calls, wherever they go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

from gateway.catalog import Contract, Method
from gateway.reading.candidate import Candidate
from governance.contract.types import enums, meaning, messages
from llmesh.api.options.v1 import options_pb2 as options

__all__ = ["Comparison", "extends"]

# Comparisons remembered, before all are forgotten.
KEPT = 4096


class Comparison:
    """Remembers what was compared: admission asks the same at every change of the mesh."""

    def __init__(self) -> None:
        """Nothing was compared yet."""
        self._known: dict[tuple[str, str, str], str] = {}

    def extends(self, larger: Candidate, smaller: Candidate) -> str:
        """As the function extends says."""
        key = (larger.service, larger.version, smaller.version)
        if key not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[key] = extends(larger, smaller)
        return self._known[key]


def extends(larger: Candidate, smaller: Candidate) -> str:
    """What keeps a contract from being the other one with more in it; empty if nothing does."""
    return next(_differences(larger, smaller), "")


def _differences(larger: Candidate, smaller: Candidate) -> Iterator[str]:
    if _facts(larger) != _facts(smaller):
        yield "the domain, stage, labels or `hidden` of the tool differ"
    known = {method.name: method for method in larger.methods}
    for method in smaller.methods:
        other = known.get(method.name)
        if other is None:
            yield f"the method `{method.name}` is gone"
        elif _method_facts(method) != _method_facts(other):
            yield f"`{method.name}` has other types, or another effect, cost or need of approval"
        elif not _covers(other, method):
            yield f"`{method.name}` may carry data of classes that it carries no more"
    yield from _type_differences(larger, smaller)


def _facts(candidate: Candidate) -> object:
    sheet = candidate.sheet
    return sheet and (sheet.domain, sheet.hidden, sheet.lifecycle.stage, dict(sheet.labels))


def _method_facts(method: Method) -> object:
    stated = method.options
    shape = (method.request_type, method.response_type, method.client_streaming, method.server_streaming)
    return (*shape, method.effect, method.idempotent, stated.needs_approval, stated.cost)


def _covers(larger: Method, smaller: Method) -> bool:
    """Whether what the one says of its data is true of the other's as well."""
    return larger.unclassified >= smaller.unclassified and {*larger.data_classes} >= {*smaller.data_classes}


def _type_differences(larger: Candidate, smaller: Candidate) -> Iterator[str]:
    changed = {
        name
        for package, types in smaller.types.items()
        for name, fingerprint in types.items()
        if larger.types.get(package, {}).get(name, fingerprint) != fingerprint
    }
    if not changed:
        return
    new, old = _Types(larger.contract), _Types(smaller.contract)
    for name in sorted(changed):
        if name not in old.meanings or new.meanings.get(name) != old.meanings[name]:
            yield f"`{name}` has another syntax, or is an extension that changed"
    for name, message in old.messages.items():
        if _top_of(name, changed) and name in new.messages:
            yield from _message_differences(name, new.messages[name], message)
    for name, enum in old.enums.items():
        if _top_of(name, changed) and name in new.enums and _values(enum) - _values(new.enums[name]):
            yield f"values of `{name}` changed, or are gone"


def _top_of(name: str, tops: set[str]) -> bool:
    """Whether it is one of them, or is in one."""
    labels = name.split(".")
    return any(".".join(labels[:count]) in tops for count in range(1, len(labels) + 1))


class _Types:
    """A contract's types by full name. meanings: of top-level ones, what their files say of how they are read."""

    def __init__(self, contract: Contract) -> None:
        self.messages: Mapping[str, DescriptorProto] = messages(contract.files)
        self.enums: Mapping[str, EnumDescriptorProto] = enums(contract.files)
        self.meanings = {
            f"{file.package}.{each.name}": meaning(file)
            for file in contract.files
            for each in (*file.message_type, *file.enum_type)
        }


def _message_differences(name: str, larger: DescriptorProto, smaller: DescriptorProto) -> Iterator[str]:
    if larger.options.map_entry != smaller.options.map_entry:
        yield f"`{name}` is a map's entry in one alone"
    known = {field.number: field for field in larger.field}
    for field in smaller.field:
        other = known.pop(field.number, None)
        if other is None:
            yield f"the field `{name}.{field.name}` is gone"
        elif _field_facts(field, smaller) != _field_facts(other, larger):
            yield f"the field `{name}.{field.name}` changed"
    if any(field.label == FieldDescriptorProto.LABEL_REQUIRED for field in known.values()):
        yield f"`{name}` has a new field that is required"
    if not all(_within(each, larger.extension_range) for each in smaller.extension_range):
        yield f"`{name}` can be extended no more as it could"
    if _extensions(smaller.extension) - _extensions(larger.extension):
        yield f"extensions within `{name}` changed"


def _field_facts(field: FieldDescriptorProto, message: DescriptorProto) -> object:
    """What a field means, save texts about it."""
    stated = field.options.Extensions[options.field]
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    shape = (field.name, field.json_name, field.type, field.label, field.type_name, field.default_value, oneof)
    features = field.options.features.SerializeToString(deterministic=True)
    return (*shape, field.proto3_optional, features, stated.data_class, stated.redact)


def _within(span: DescriptorProto.ExtensionRange, known: Iterable[DescriptorProto.ExtensionRange]) -> bool:
    return any(each.start <= span.start and span.end <= each.end for each in known)


def _extensions(fields: Iterable[FieldDescriptorProto]) -> set[bytes]:
    return {field.SerializeToString(deterministic=True) for field in fields}


def _values(enum: EnumDescriptorProto) -> set[tuple[int, str]]:
    return {(value.number, value.name) for value in enum.value}
