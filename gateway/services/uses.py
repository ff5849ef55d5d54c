"""Which types of a contract belong to some of its services alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from governance.contract.types import full_name, messages
from governance.ownership import is_platform


def only_used_by(files: Iterable[FileDescriptorProto], services: frozenset[str]) -> frozenset[str]:
    """The top-level types that nothing but these services leads to.

    What no service leads to is everybody's, and so are the platform's types.
    """
    known = list(files)
    uses = _uses(known)
    theirs = _reached(_types_of(known, services, within=True), uses)
    others = uses.keys() - theirs
    return theirs - _reached([*_types_of(known, services, within=False), *others], uses)


def _types_of(files: Iterable[FileDescriptorProto], services: frozenset[str], *, within: bool) -> Iterator[str]:
    """What the methods take and give, of the services or of all others; as top-level types."""
    tops = _tops(files)
    for file in files:
        for service in file.service:
            if (full_name(file.package, service.name) in services) is within:
                for method in service.method:
                    yield from _known((method.input_type, method.output_type), tops)


def _uses(files: list[FileDescriptorProto]) -> dict[str, set[str]]:
    """Top-level type -> those that it holds, that extend it, or that are extended in it."""
    tops = _tops(files)
    uses: dict[str, set[str]] = {top: set() for top in tops.values()}
    for file in files:
        for name, message in messages([file]).items():
            if name in tops:
                uses[tops[name]].update(_known(_names(message), tops))
        for field in file.extension:
            for extended in _known([field.extendee], tops):
                uses[extended].update(_known([field.type_name], tops))
    return uses


def _tops(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Every type -> the top-level one that it is, or is in. None of the platform's."""
    tops: dict[str, str] = {}
    for file in files:
        if is_platform(file.package):
            continue
        prefix = f"{file.package}." if file.package else ""
        for name, message in messages([file]).items():
            tops[name] = prefix + name.removeprefix(prefix).partition(".")[0]
            tops.update((f"{name}.{enum.name}", tops[name]) for enum in message.enum_type)
        tops.update((prefix + enum.name, prefix + enum.name) for enum in file.enum_type)
    return tops


def _names(message: DescriptorProto) -> Iterator[str]:
    fields: Iterable[FieldDescriptorProto] = (*message.field, *message.extension)
    for field in fields:
        yield from (field.type_name, field.extendee)


def _known(names: Iterable[str], tops: Mapping[str, str]) -> Iterator[str]:
    return (tops[name] for each in names if (name := each.removeprefix(".")) in tops)


def _reached(roots: Iterable[str], uses: Mapping[str, set[str]]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(uses[name])
    return frozenset(reached)
