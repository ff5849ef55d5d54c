"""Call any method from its descriptors alone: protobuf JSON in, protobuf JSON out.

Each contract has a descriptor pool of its own, so two tools may disagree on a
type without anybody noticing, and nothing here meets the stubs of the process.
"""

from __future__ import annotations

__all__ = ["BadJson", "Contract", "Method", "UnknownMethod", "invoke", "split_method"]

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from llmesh.nearest import nearest_value
from llmesh.schema import BadJson, read_value

_UNKNOWN_VALUE = re.compile(r"Invalid enum value (?P<value>\S+) for enum type (?P<enum>\S+)")

Metadata = Sequence[tuple[str, str | bytes]]


class UnknownMethod(LookupError):  # noqa: N818 named for what it is, like the kinds of llmesh.errors
    """The contract has no such service or method; the message says which."""


def split_method(name: str) -> tuple[str, str]:
    """Service and method of "acme.support.v1.Tickets/GetTicket".

    A leading slash, and a dot in place of the slash, are taken too. Raises UnknownMethod.
    """
    path = name.removeprefix("/")
    service, slash, method = path.partition("/") if "/" in path else path.rpartition(".")
    if not (service and slash and method) or "/" in method:
        raise UnknownMethod(f"`{name}` is not a method: write it like acme.support.v1.Tickets/GetTicket")
    return service, method


@dataclass(frozen=True, slots=True)
class Contract:
    """The types of one set of files, in a pool of their own."""

    pool: DescriptorPool
    files: tuple[FileDescriptorProto, ...] = field(repr=False)

    @classmethod
    def of(cls, files: FileDescriptorSet) -> Contract:
        """The contract that these files make; they may come in any order.

        Raises TypeError if they don't fit together or one is missing.
        """
        ordered = tuple(imports_first(files.file))
        pool = DescriptorPool()
        for file in ordered:
            pool.Add(file)
        return cls(pool, ordered)

    def service(self, name: str) -> ServiceDescriptor:
        """The service of that full name. Raises UnknownMethod."""
        try:
            return self.pool.FindServiceByName(name)
        except KeyError as err:
            raise UnknownMethod(f"the contract has no service `{name}`") from err

    def method(self, service: str, name: str) -> Method:
        """One method of a service. Raises UnknownMethod."""
        found = self.service(service)
        if name not in found.methods_by_name:
            known = ", ".join(found.methods_by_name)
            raise UnknownMethod(f"`{service}` has no method `{name}`; it has {known}")
        return Method(found.methods_by_name[name], self.pool)


def imports_first(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The files, each after those it imports."""
    by_name = {file.name: file for file in files}
    ordered: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptorProto) -> None:
        for name in file.dependency:
            if name in by_name and name not in ordered:
                add(by_name[name])
        ordered[file.name] = file

    for file in by_name.values():
        if file.name not in ordered:
            add(file)
    return list(ordered.values())


@dataclass(frozen=True, slots=True)
class Method:
    """One method, and the types its messages are made of."""

    descriptor: MethodDescriptor
    pool: DescriptorPool

    @property
    def path(self) -> str:
        """The path of a call: "/acme.support.v1.Tickets/GetTicket"."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    def request(self, value: object) -> Message:
        """The request that a parsed JSON value spells. Raises BadJson, which names what may have been meant."""
        try:
            return read_value(value, self.descriptor.input_type)
        except BadJson as err:
            raise BadJson(f"{err}{self._nearest_value(str(err))}") from err

    def _nearest_value(self, words: str) -> str:
        """Words to follow protobuf's on a value that an enum does not have; empty where nothing is near."""
        told = _UNKNOWN_VALUE.search(words)
        if told is None:
            return ""
        try:
            known = self.pool.FindEnumTypeByName(told["enum"]).values_by_name
        except KeyError:
            # The value was written to look like these words.
            return ""
        return nearest_value(told["value"], known)

    def form(self) -> dict[str, object]:
        """A request as a JSON value to be filled in: the fields that every one has, empty."""
        request = message_factory.GetMessageClass(self.descriptor.input_type)()
        return json_format.MessageToDict(request, always_print_fields_with_no_presence=True, descriptor_pool=self.pool)

    def value(self, response: Message) -> dict[str, object]:
        """A response as a JSON value."""
        return json_format.MessageToDict(response, descriptor_pool=self.pool)


async def invoke(
    channel: grpc.aio.Channel,
    method: Method,
    requests: AsyncIterator[Message],
    *,
    timeout_s: float | None = None,
    metadata: Metadata = (),
) -> AsyncIterator[Message]:
    """Call the method with these requests; yields each response as it comes.

    A method of one request gets an empty one if there is none; BadJson is raised
    if there are more. Failures are those of the channel's calls.
    """
    descriptor = method.descriptor
    request_type = message_factory.GetMessageClass(descriptor.input_type)
    response_type = message_factory.GetMessageClass(descriptor.output_type)
    kind = "_".join(
        "stream" if streams else "unary" for streams in (descriptor.client_streaming, descriptor.server_streaming)
    )
    call = getattr(channel, kind)(
        method.path, request_serializer=request_type.SerializeToString, response_deserializer=response_type.FromString
    )
    request = requests if descriptor.client_streaming else await _only(requests, method)
    answer = call(request, timeout=timeout_s, metadata=tuple(metadata))
    if not descriptor.server_streaming:
        yield await answer
        return
    async for response in answer:
        yield response


async def _only(requests: AsyncIterator[Message], method: Method) -> Message:
    request = await anext(requests, method.request({}))
    async for _ in requests:
        raise BadJson(f"`{method.path}` takes one request, and there are more")
    return request
