"""One form for every contract, whoever compiled it.

Compilers and runtimes agree on what a contract means and differ in what they
keep of it: source positions, JSON names, the order of files. Normalised, two
copies of one contract are the same bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

__all__ = ["CircularImportError", "in_order", "json_name", "normalise", "normalise_file"]

NONE: Mapping[str, FileDescriptorProto] = MappingProxyType({})
# Of fields; contracts have many of a name in common.
KEPT_NAMES = 4_096


class CircularImportError(ValueError):
    """Files that import each other. names: the files that no order can place."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """Keep the names, sorted."""
        self.names = names
        super().__init__(f"files import each other: {', '.join(names[:4])}")


def normalise(
    files: Iterable[FileDescriptorProto], *, normal: Mapping[str, FileDescriptorProto] = NONE
) -> tuple[FileDescriptorProto, ...]:
    """The files in their one form: each normalised, each after its imports, else by name.

    normal: by name, files that are normalised already, and stand as they are for those of their names.

    Idempotent, and independent of the order of files. Imports that are not in
    the set are left alone. Raises CircularImportError.
    """
    by_name = {file.name: normal.get(file.name) or normalise_file(file) for file in files}
    return tuple(in_order(by_name))


def normalise_file(file: FileDescriptorProto) -> FileDescriptorProto:
    """A copy without source positions, with every JSON name, and proto2 as unset syntax."""
    result = FileDescriptorProto()
    result.CopyFrom(file)
    result.ClearField("source_code_info")
    if result.syntax == "proto2":
        result.ClearField("syntax")
    _name_fields(result.extension)
    for message in result.message_type:
        _name_message(message)
    return result


def in_order(files: Mapping[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The files, each after those it imports; where that leaves a choice, by name.

    Raises CircularImportError.
    """
    waiting = {name: {each for each in file.dependency if each in files} for name, file in files.items()}
    importers: dict[str, list[str]] = {name: [] for name in files}
    for name, imports in waiting.items():
        for each in imports:
            importers[each].append(name)
    free = [name for name, imports in waiting.items() if not imports]
    heapq.heapify(free)
    placed: list[FileDescriptorProto] = []
    while free:
        name = heapq.heappop(free)
        placed.append(files[name])
        del waiting[name]
        for importer in importers[name]:
            waiting[importer].discard(name)
            if not waiting[importer]:
                heapq.heappush(free, importer)
    if waiting:
        raise CircularImportError(tuple(sorted(waiting)))
    return placed


@lru_cache(maxsize=KEPT_NAMES)
def json_name(name: str) -> str:
    """The JSON name that protoc gives a field: "owner_team" is "ownerTeam".

    Descriptors reflected from Python servers carry none.
    """
    letters: list[str] = []
    upper = False
    for letter in name:
        if letter == "_":
            upper = True
            continue
        letters.append(letter.upper() if upper and letter.islower() else letter)
        upper = False
    return "".join(letters)


def _name_message(message: DescriptorProto) -> None:
    # A loop, not recursion: how deep messages nest is the peer's choice.
    waiting = [message]
    while waiting:
        each = waiting.pop()
        _name_fields(each.field)
        _name_fields(each.extension)
        waiting.extend(each.nested_type)


def _name_fields(fields: Iterable[FieldDescriptorProto]) -> None:
    for field in fields:
        if not field.json_name:
            field.json_name = json_name(field.name)
