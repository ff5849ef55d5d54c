"""From files that a server sent to a contract whose every name resolves.

Each contract is linked in a descriptor pool of its own: two tools' types of
one name never meet, and nothing enters the process's default pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.catalog import Contract
from gateway.reading.pinned import pinned, pinned_bytes
from gateway.reading.refusal import Refusal
from governance.contract.digest import digest
from governance.contract.normalise import CircularImportError, normalise
from governance.contract.types import relative_names, service_in

__all__ = ["Linked", "gather", "link", "make_pool"]

NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Linked:
    """A service's contract, and the pool in which it is linked."""

    service: str
    contract: Contract
    pool: DescriptorPool


def link(service: str, files: Iterable[FileDescriptorProto]) -> Linked:
    """The contract of a service: its file and all it imports, from files or, first, from the pinned ones.

    Raises Refusal if a file is missing, files import each other, a name does
    not resolve or is defined twice, or the service is not among them.
    """
    contract = gather(service, files)
    return Linked(service, contract, make_pool(contract.files))


def gather(service: str, files: Iterable[FileDescriptorProto]) -> Contract:
    """The contract of a service as link makes it, names not yet resolved. Raises Refusal."""
    ours = pinned()
    by_name = {file.name: file for file in files}
    found = service_in((file for name, file in by_name.items() if name not in ours), service)
    if found is None:
        found = service_in(ours.values(), service)
    if found is None:
        raise Refusal("WRONG_FILE", f"no file defines `{service}`")
    closure = _closure(found[0], {**by_name, **ours})
    try:
        ordered = normalise(closure, normal=ours)
    except CircularImportError as err:
        raise Refusal("CIRCULAR_IMPORT", str(err)) from err
    for file in (each for each in ordered if each.name not in ours):
        if not _is_path(file.name):
            name = file.name[:NAME_MAX]
            raise Refusal("BAD_FILE_NAME", f"`{name}` is no file's name: give protoc paths below one of its -I folders")
        for name in relative_names(file):
            raise Refusal(
                "RELATIVE_NAME", f"`{file.name}` names the type `{name}` without its package; protoc never does"
            )
    return Contract(digest(ordered, known=pinned_bytes()), ordered)


def _is_path(name: str) -> bool:
    """Whether a file's name is a path below some folder, for those who write the file there."""
    parts = name.split("/")
    return len(name) <= NAME_MAX and name.isprintable() and "\\" not in name and not {"", ".", ".."} & {*parts}


def make_pool(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    """A pool of exactly these files of a contract, each of which follows its imports. Raises Refusal."""
    pool, known = DescriptorPool(), pinned_bytes()
    for file in files:
        try:
            pool.AddSerializedFile(known.get(file.name) or file.SerializeToString())
        except TypeError as err:
            reason = str(err).removeprefix("Couldn't build proto file into descriptor pool: ")
            raise Refusal("LINK_FAILED", f"`{file.name}` does not link: {reason[:500]}") from err
    return pool


def _closure(root: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    found = {root.name: root}
    waiting = [root]
    while waiting:
        file = waiting.pop()
        for name in file.dependency:
            if name in found:
                continue
            if name not in files:
                raise Refusal("MISSING_FILE", f"`{file.name}` imports `{name}`, which reflection does not send")
            found[name] = files[name]
            waiting.append(files[name])
    return list(found.values())
