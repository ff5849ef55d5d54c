"""Server reflection, v1 and v1alpha: how the mesh reads a tool's contract.

grpcio-reflection ships v1alpha. v1 has the same messages under another
package, so one servicer answers both; v1's own descriptor is made from
v1alpha's, in a private pool, lest it clash with stubs that a tool brings.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING
from typing import Any as Untyped

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2  # pyright: ignore[reportMissingTypeStubs]: pyright has them
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionServicer

if TYPE_CHECKING:
    import grpc.aio

__all__ = ["V1", "V1ALPHA", "files_defining", "reflect", "v1_file"]

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def reflect(services: Iterable[str]) -> ServerReflectionServicer:
    """A servicer that lists these services and answers with their files, each with all it imports.

    `llmesh.Server` adds one for what it serves, and serves it under both names.
    """
    return _Reflection(services)


async def files_defining(channel: grpc.aio.Channel, symbol: str) -> list[bytes]:
    """The file that defines a symbol, then all it imports, serialized; none if whoever is asked tells of no such.

    Raises what calls by the channel raise.
    """
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    untyped: Untyped = channel
    answers = untyped.stream_stream(
        f"/{V1}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(_only(asked))
    async for answer in answers:
        return list(answer.file_descriptor_response.file_descriptor_proto)
    return []


def v1_file() -> descriptor_pb2.FileDescriptorProto:
    """grpc/reflection/v1/reflection.proto, as gRPC publishes it but for its comments and options."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    file.name = "grpc/reflection/v1/reflection.proto"
    return file


class _Reflection(ServerReflectionServicer):
    """Answers with files from memory: the mesh asks for each service, and most of each answer is what all import."""

    def __init__(self, services: Iterable[str]) -> None:
        self._files = _Pool()
        # Answers everything that is not a file.
        self._others: Untyped = reflection.aio.ReflectionServicer(services, pool=self._files)
        # By file name.
        self._contents: dict[str, bytes] = {}

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest], context: object
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        async for request in request_iterator:
            try:
                file = self._asked_for(request)
            except KeyError:
                file = None
            if file is not None:
                answer = reflection_pb2.FileDescriptorResponse(file_descriptor_proto=self._closure(file))
                yield reflection_pb2.ServerReflectionResponse(original_request=request, file_descriptor_response=answer)
                continue
            async for answer in self._others.ServerReflectionInfo(_only(request), context):
                yield answer

    def _asked_for(self, request: reflection_pb2.ServerReflectionRequest) -> FileDescriptor | None:
        """The file that is asked for; None if it is something else. Raises KeyError if there is none."""
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                return self._files.FindFileByName(request.file_by_filename)
            case "file_containing_symbol":
                return self._files.FindFileContainingSymbol(request.file_containing_symbol)
            case _:
                return None

    def _closure(self, file: FileDescriptor) -> Iterable[bytes]:
        """The file, then all it imports."""
        found = {file.name: file}
        waiting = [file]
        while waiting:
            for each in waiting.pop().dependencies:
                if each.name not in found:
                    found[each.name] = each
                    waiting.append(each)
        for name, each in found.items():
            if name not in self._contents:
                self._contents[name] = each.serialized_pb
        return [self._contents[name] for name in found]


async def _only(
    request: reflection_pb2.ServerReflectionRequest,
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    yield request


class _Pool:
    """The process's descriptors, and v1's own beside them: as much of a pool as the servicer asks for."""

    def __init__(self) -> None:
        self._process = descriptor_pool.Default()
        self._v1 = descriptor_pool.DescriptorPool()
        self._v1.Add(v1_file())

    def FindFileByName(self, name: str) -> FileDescriptor:
        try:
            return self._process.FindFileByName(name)
        except KeyError:
            return self._v1.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        for pool in (self._process, self._v1):
            for find in (pool.FindFileContainingSymbol, functools.partial(_find_file_of_method, pool)):
                with contextlib.suppress(KeyError):
                    return find(symbol)
        raise KeyError(symbol)

    def FindMessageTypeByName(self, name: str) -> Descriptor:
        try:
            return self._process.FindMessageTypeByName(name)
        except KeyError:
            return self._v1.FindMessageTypeByName(name)

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:
        return self._process.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:
        return self._process.FindAllExtensions(message)


def _find_file_of_method(pool: descriptor_pool.DescriptorPool, symbol: str) -> FileDescriptor:
    """The protocol has methods among the symbols; protobuf's C pools don't."""
    return pool.FindMethodByName(symbol).containing_service.file
