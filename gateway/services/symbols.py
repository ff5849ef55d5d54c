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
from gateway.services.uses import only_used_by
from governance.contract.types import full_name, messages

# Callers who see different services of one contract, before what one of them sees is made again.
SIGHTS_KEPT = 16


@dataclass(frozen=True, slots=True, weakref_slot=True)
class File:
    """One file of a contract.

    symbols: all that it defines. services: those among them. extensions:
    extended type -> the numbers it adds to it.
    """

    proto: FileDescriptorProto
    symbols: frozenset[str]
    services: frozenset[str]
    messages: frozenset[str]
    extensions: Mapping[str, frozenset[int]]


class Symbols:
    """What one contract defines. files: by name, each after its imports."""

    def __init__(self, files: Mapping[str, File]) -> None:
        """Nobody has been kept from anything yet."""
        self.files = files
        self.services = frozenset(name for file in files.values() for name in file.services)
        self._without: dict[frozenset[str], Symbols] = {}

    def seen(self, visible: Callable[[str], bool]) -> Symbols:
        """What is left without the services that are not visible, and without the types that only they use."""
        hidden = frozenset(name for name in self.services if not visible(name))
        if not hidden:
            return self
        known = self._without.pop(hidden, None) or _without(self.files, hidden)
        self._without[hidden] = known
        if len(self._without) > SIGHTS_KEPT:
            del self._without[next(iter(self._without))]
        return known

    def defining(self, symbol: str) -> File | None:
        """The file that defines a service, method, type, field, enum value or extension."""
        return next((file for file in self.files.values() if symbol in file.symbols), None)

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
            known = Symbols({proto.name: self._file(proto) for proto in contract.files})
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


def _without(files: Mapping[str, File], hidden: frozenset[str]) -> Symbols:
    protos = [file.proto for file in files.values()]
    gone = only_used_by(protos, hidden)
    return Symbols({name: _cut(file, hidden, gone) for name, file in files.items()})


def _cut(file: File, hidden: frozenset[str], gone: frozenset[str]) -> File:
    """The file without some services and top-level types; itself if it has none of them."""
    if not file.services & hidden and not file.symbols & gone:
        return file
    package = file.proto.package
    copy = FileDescriptorProto()
    copy.CopyFrom(file.proto)
    for kept, dropped in ((copy.service, hidden), (copy.message_type, gone), (copy.enum_type, gone)):
        for place in reversed(range(len(kept))):
            if full_name(package, kept[place].name) in dropped:
                del kept[place]
    for place in reversed(range(len(copy.extension))):
        if copy.extension[place].extendee.removeprefix(".") in gone:
            del copy.extension[place]
    return _read(copy)


def _read(proto: FileDescriptorProto) -> File:
    types = messages([proto])
    extending = [(proto.package, field) for field in proto.extension]
    symbols = set(_enum_symbols(proto.package, proto.enum_type))
    for name, message in types.items():
        symbols.add(name)
        symbols.update(full_name(name, part.name) for part in (*message.field, *message.oneof_decl))
        symbols.update(_enum_symbols(name, message.enum_type))
        extending.extend((name, field) for field in message.extension)
    symbols.update(full_name(scope, field.name) for scope, field in extending)
    services = frozenset(full_name(proto.package, service.name) for service in proto.service)
    symbols |= services
    for service in proto.service:
        symbols.update(full_name(full_name(proto.package, service.name), method.name) for method in service.method)
    numbers = _numbers(field for _, field in extending)
    return File(proto, frozenset(symbols), services, frozenset(types), numbers)


def _numbers(fields: Iterable[FieldDescriptorProto]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for field in fields:
        found.setdefault(field.extendee.removeprefix("."), set()).add(field.number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


def _enum_symbols(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield full_name(scope, enum.name)
        # Values are siblings of their enum, as in C++.
        for value in enum.value:
            yield full_name(scope, value.name)
