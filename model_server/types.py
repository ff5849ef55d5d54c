"""The types that callers name: from the files they send, or from contracts that they see on the mesh."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from llmesh.call import current_call
from llmesh.errors import InvalidCall, NotFound, ToolFailed, Violation
from llmesh.reflection import files_defining

__all__ = ["Types"]

FIELD = "descriptors"


class Types:
    """The types of one call, by full name: those of the files that came with it, else those that its caller sees."""

    def __init__(self, sent: FileDescriptorSet | None) -> None:
        """sent: every file after its imports; None to ask the mesh. Raises InvalidCall if they don't fit together."""
        self._sent = None if sent is None else _pool(sent)

    async def message(self, name: str) -> Descriptor:
        """The message type of that name. Raises NotFound, or what calling the mesh raises."""
        pool = self._sent or await _seen(name, "message type")
        try:
            return pool.FindMessageTypeByName(name)
        except KeyError as err:
            raise _unknown("message type", name) from err

    async def method(self, path: str) -> MethodDescriptor:
        """The method "acme.support.v1.Tickets/GetTicket". Raises NotFound, or what calling the mesh raises."""
        service, _, name = path.partition("/")
        pool = self._sent or await _seen(service, "method", shown=path)
        try:
            return pool.FindServiceByName(service).methods_by_name[name]
        except KeyError as err:
            raise _unknown("method", path) from err


async def _seen(symbol: str, kind: str, *, shown: str = "") -> DescriptorPool:
    """The files that define a symbol, as the caller of this call sees them: asked of the mesh in their name."""
    found = await files_defining(current_call().mesh.channel, symbol)
    if not found:
        raise _unknown(kind, shown or symbol)
    return _pool(_files(found))


def _files(serialized: Iterable[bytes]) -> FileDescriptorSet:
    """The files, each after its imports."""
    try:
        found = [FileDescriptorProto.FromString(each) for each in serialized]
    except DecodeError as err:
        raise ToolFailed("the mesh's reflection answers with what is no file", reason="BAD_REFLECTION") from err
    ordered: dict[str, FileDescriptorProto] = {}
    while waiting := [file for file in found if file.name not in ordered]:
        names = {file.name for file in waiting}
        free = [file for file in waiting if not names.intersection(file.dependency)]
        if not free:
            raise ToolFailed("the mesh's reflection answers with files that import each other", reason="BAD_REFLECTION")
        ordered.update((file.name, file) for file in free)
    return FileDescriptorSet(file=ordered.values())


def _pool(files: FileDescriptorSet) -> DescriptorPool:
    pool = DescriptorPool()
    for file in files.file:
        try:
            pool.Add(file)
        except TypeError as err:
            words = f"`{file.name}` does not fit the files before it: {err}"
            raise InvalidCall(f"`{FIELD}`: {words}", [Violation(FIELD, words)], reason="BAD_DESCRIPTORS") from err
    return pool


def _unknown(kind: str, name: str) -> NotFound:
    # The same words whether there is none, or none that the caller sees.
    return NotFound(f"there is no {kind} `{name}` that you see", resource=(kind, name), reason="UNKNOWN_TYPE")
