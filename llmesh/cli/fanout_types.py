"""The types of a fan-out, of which this process has no stubs: what is sent, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc.aio
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from llmesh import ToolFailed, catalog
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.dynamic import Method
from llmesh.nearest import nearest_type
from llmesh.problem import Problem

__all__ = ["Types", "find", "takers_of"]


@dataclass(frozen=True, slots=True)
class Types:
    """taker: one of the methods that take the request, of that service. answers: whence the types of answers are known.

    A full name is one type on the whole mesh, whichever contract has it.
    """

    service: str
    taker: Method
    answers: Mapping[str, DescriptorPool]

    def read(self, packed: any_pb2.Any) -> Message:
        """An answer as of its type; as it came if the caller may not know the tool that has the type."""
        name = packed.TypeName()
        if name not in self.answers:
            return packed
        try:
            return message_factory.GetMessageClass(self.answers[name].FindMessageTypeByName(name)).FromString(
                packed.value
            )
        except DecodeError as err:
            raise ToolFailed(f"the answer is no `{name}`", reason="MALFORMED") from err


async def find(channel: grpc.aio.Channel, name: str) -> Types:
    """The types of a fan-out of a request type, as `takers_of` has its name. Raises Problem."""
    takers = takers_of(await catalog.list_tools(channel), name)
    service, taker = takers[0]
    contract = await catalog.get_contract(channel, service=service)
    return Types(service, contract.method(service, taker.name), await _answers(channel, takers))


async def _answers(
    channel: grpc.aio.Channel, takers: Sequence[tuple[str, catalog_pb2.Method]]
) -> Mapping[str, DescriptorPool]:
    who = {method.response_type: service for service, method in reversed(takers)}
    return {name: (await catalog.get_contract(channel, service=service)).pool for name, service in who.items()}


def takers_of(tools: Iterable[catalog_pb2.Tool], name: str) -> Sequence[tuple[str, catalog_pb2.Method]]:
    """The methods that take a type, with their services: its full name, or the end of it where only one type has that.

    Never empty. Raises Problem.
    """
    wanted = name.removeprefix(".")
    methods = [(tool.service, method) for tool in tools for method in tool.methods]
    exact = [each for each in methods if each[1].request_type == wanted]
    found = exact or [each for each in methods if each[1].request_type.endswith(f".{wanted}")]
    if not found:
        near = nearest_type(wanted, {method.request_type for _, method in methods})
        raise Problem(
            f"no method that you may know of takes `{name}`{near}", "see what each takes: llmesh tools show TOOL"
        )
    types = sorted({method.request_type for _, method in found})
    if len(types) > 1:
        raise Problem(f"`{name}` may be {', '.join(f'`{each}`' for each in types)}", "write the full name")
    return found
