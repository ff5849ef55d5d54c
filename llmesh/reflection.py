"""Server reflection, v1 and v1alpha: how the mesh reads a tool's contract.

grpcio-reflection ships v1alpha. v1 has the same messages under another
package, so one servicer answers both; v1's own descriptor is made from
v1alpha's, in a private pool, lest it clash with stubs that a tool brings.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2  # pyright: ignore[reportMissingTypeStubs]: pyright has them
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionServicer

__all__ = ["V1", "V1ALPHA", "reflect", "v1_file"]

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def reflect(services: Iterable[str]) -> ServerReflectionServicer:
    """A servicer that lists these services and answers with their files, each with all it imports.

    `llmesh.Server` adds one for what it serves, and serves it under both names.
    """
    return reflection.aio.ReflectionServicer(services, pool=_Pool())


def v1_file() -> descriptor_pb2.FileDescriptorProto:
    """grpc/reflection/v1/reflection.proto, as gRPC publishes it but for its comments and options."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    file.name = "grpc/reflection/v1/reflection.proto"
    return file


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
