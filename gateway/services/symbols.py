"""What contracts define, by name: the index that reflection answers from.

Files that several contracts share are read and kept once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto

from gateway.catalog import Contract
from governance.contract.types import messages


@dataclass(frozen=True, slots=True, weakref_slot=True)
class File:
    """One file of a contract.

    owners: every symbol it defines -> the service that the symbol is or is a
    method of, empty for the others. extensions: extended type -> the numbers
    it adds to it.
    """

    proto: FileDescriptorProto
    owners: Mapping[str, str]
    messages: frozenset[str]
    extensions: Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class Symbols:
    """What one contract defines. files: by name, each after its imports."""

    files: Mapping[str, File]

    def defining(self, symbol: str) -> File | None:
        """The file that defines a service, method, type, field, enum value or extension."""
        return next((file for file in self.files.values() if symbol in file.owners), None)

    def extending(self, type_name: str, number: int) -> File | None:
        """The file that defines the extension of a type by its number."""
        return next((file for file in self.files.values() if number in file.extensions.get(type_name, ())), None)

    def numbers(self, type_name: str) -> set[int] | None:
        """Numbers of all extensions of a type; None if the contract has no such message."""
        if not any(type_name in file.messages for file in self.files.values()):
            return None
        return {number for file in self.files.values() for number in file.extensions.get(type_name, ())}

    def closure(self, file: File) -> Iterator[File]:
        """The file, then each file it needs, once."""
        waiting, met = [file], {file.proto.name}
        while waiting:
            file = waiting.pop(0)
            yield file
            for name in file.proto.dependency:
                if name not in met and name in self.files:
                    met.add(name)
                    waiting.append(self.files[name])


class Shelf:
    """The symbols of every contract that was asked for, kept as long as it is current."""

    def __init__(self) -> None:
        """Start empty."""
        self._contracts: dict[str, Symbols] = {}
        self._files: WeakValueDictionary[bytes, File] = WeakValueDictionary()

    def symbols(self, contract: Contract) -> Symbols:
        """The symbols of the contract, read at the first time of asking."""
        known = self._contracts.get(contract.digest)
        if known is None:
            known = Symbols({proto.name: self._file(proto) for proto in contract.files.file})
            self._contracts[contract.digest] = known
        return known

    def keep(self, digests: Collection[str]) -> None:
        """Forget every contract but these."""
        self._contracts = {digest: known for digest, known in self._contracts.items() if digest in digests}

    def _file(self, proto: FileDescriptorProto) -> File:
        key = hashlib.sha256(proto.SerializeToString(deterministic=True)).digest()
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = _read(proto)
        return file


def without_services(proto: FileDescriptorProto, visible: Callable[[str], bool]) -> FileDescriptorProto:
    """The file without the services that are not visible; itself if all are."""
    prefix = f"{proto.package}." if proto.package else ""
    kept = [service for service in proto.service if visible(prefix + service.name)]
    if len(kept) == len(proto.service):
        return proto
    copy = FileDescriptorProto()
    copy.CopyFrom(proto)
    del copy.service[:]
    copy.service.extend(kept)
    return copy


def _read(proto: FileDescriptorProto) -> File:
    types = messages([proto])
    extending = [(proto.package, field) for field in proto.extension]
    owners = dict.fromkeys(_enum_symbols(proto.package, proto.enum_type), "")
    for name, message in types.items():
        owners[name] = ""
        owners.update({_join(name, part.name): "" for part in (*message.field, *message.oneof_decl)})
        owners.update(dict.fromkeys(_enum_symbols(name, message.enum_type), ""))
        extending.extend((name, field) for field in message.extension)
    owners.update({_join(scope, field.name): "" for scope, field in extending})
    for service in proto.service:
        name = _join(proto.package, service.name)
        owners.update(dict.fromkeys((name, *(_join(name, method.name) for method in service.method)), name))
    return File(proto, owners, frozenset(types), _numbers(field for _, field in extending))


def _numbers(fields: Iterable[FieldDescriptorProto]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for field in fields:
        found.setdefault(field.extendee.removeprefix("."), set()).add(field.number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


def _enum_symbols(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield _join(scope, enum.name)
        # Values are siblings of their enum, as in C++.
        for value in enum.value:
            yield _join(scope, value.name)


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
