"""Server reflection for the whole mesh, as each caller may see it.

The files come from the contracts in the catalog; no tool is asked. v1 and
v1alpha are the same bytes, so one servicer answers both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionServicer

from gateway.catalog import Contract, Tool
from gateway.services.caller import current_caller
from gateway.services.contracts import Contracts
from gateway.services.symbols import File, Symbols
from gateway.services.visible import View
from governance.words import Caller

# Looked at in one go, before others have a turn.
TOOLS_A_TURN = 20
_NOT_FOUND = int(grpc.StatusCode.NOT_FOUND.value[0])
_INVALID = int(grpc.StatusCode.INVALID_ARGUMENT.value[0])


class UnknownNameError(Exception):
    """What a request asks for is not there, or not for this caller."""


@dataclass(slots=True)
class Conversation:
    """One reflection stream of one caller."""

    view: View
    contracts: Contracts
    caller: Caller
    _last: Contract | None = field(default=None, init=False)

    async def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """The response to one request, a refusal included; never raises for what a client may send."""
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            await self._fill(response, request)
        except UnknownNameError as err:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = str(err)
        return response

    async def _fill(self, response: pb.ServerReflectionResponse, request: pb.ServerReflectionRequest) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                names = (pb.ServiceResponse(name=seen.tool.service) for seen in self.view.tools(self.caller))
                response.list_services_response.service.extend(names)
                response.list_services_response.SetInParent()
            case "file_containing_symbol":
                self._send(response, await self._files_of_symbol(request.file_containing_symbol))
            case "file_by_filename":
                self._send(response, await self._files_by_name(request.file_by_filename))
            case "file_containing_extension":
                asked = request.file_containing_extension
                self._send(response, await self._files_of_extension(asked.containing_type, asked.extension_number))
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                response.all_extension_numbers_response.base_type_name = name
                response.all_extension_numbers_response.extension_number.extend(await self._numbers(name))
            case _:
                response.error_response.error_code = _INVALID
                response.error_response.error_message = "the request asks for nothing"

    async def _files_of_symbol(self, symbol: str) -> Iterator[File]:
        if files := await self._find(self._likeliest_first(symbol), lambda symbols: symbols.defining(symbol)):
            return files
        raise UnknownNameError(f"symbol `{symbol}` is not on the mesh")

    async def _files_by_name(self, name: str) -> Iterator[File]:
        if files := await self._find(self._last_first(), lambda symbols: symbols.files.get(name)):
            return files
        raise UnknownNameError(f"file `{name}` is not on the mesh")

    async def _files_of_extension(self, type_name: str, number: int) -> Iterator[File]:
        if files := await self._find(self._last_first(), lambda symbols: symbols.extending(type_name, number)):
            return files
        raise UnknownNameError(f"extension {number} of `{type_name}` is not on the mesh")

    async def _find(self, tools: Iterable[Tool], look: Callable[[Symbols], File | None]) -> Iterator[File] | None:
        """What the look finds in the first of the tools that has it for this caller, and all that it needs."""
        async for tool in _in_turns(tools):
            if look(self.contracts.whole(tool.contract)) and self.view.see(tool, self.caller):
                symbols = self.contracts.seen(tool.contract, self.caller)
                if file := look(symbols):
                    self._last = tool.contract
                    return symbols.closure(file)
        return None

    async def _numbers(self, type_name: str) -> list[int]:
        found: list[set[int]] = []
        async for tool in _in_turns(self.view.catalog.tools.values()):
            known = self.contracts.whole(tool.contract).numbers(type_name)
            if known is not None and self.view.see(tool, self.caller):
                numbers = self.contracts.seen(tool.contract, self.caller).numbers(type_name)
                found.extend(() if numbers is None else (numbers,))
        if not found:
            raise UnknownNameError(f"type `{type_name}` is not on the mesh")
        return sorted(set[int]().union(*found))

    def _send(self, response: pb.ServerReflectionResponse, files: Iterable[File]) -> None:
        response.file_descriptor_response.file_descriptor_proto.extend(_bytes(file.proto) for file in files)

    def _likeliest_first(self, symbol: str) -> Iterator[Tool]:
        """The tool that the symbol is or is a method of, its package's tools, then all that can have it."""
        tools = self.view.catalog.tools
        for service in (symbol, symbol.rpartition(".")[0]):
            if service in tools:
                yield tools[service]
        yield from self.contracts.tools_around(symbol)

    def _last_first(self) -> Iterator[Tool]:
        """The tools of the contract that answered last on this stream, then all.

        Two contracts may hold different files of one name; a client that
        follows imports means the ones of the file it has just been given.
        """
        tools, last = self.view.catalog.tools, self._last
        if last is not None:
            yield from (tool for tool in tools.values() if tool.contract.digest == last.digest)
        yield from tools.values()


async def _in_turns(tools: Iterable[Tool]) -> AsyncIterator[Tool]:
    """The tools, while others have calls answered in between."""
    for number, tool in enumerate(tools, 1):
        yield tool
        if number % TOOLS_A_TURN == 0:
            await asyncio.sleep(0)


def _bytes(proto: FileDescriptorProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


class MeshReflectionServicer(ServerReflectionServicer):
    """Answers reflection streams, of either version."""

    def __init__(self, view: View, contracts: Contracts) -> None:
        """Answer from the view. contracts: of the same view."""
        self._view = view
        self._contracts = contracts

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterator[pb.ServerReflectionRequest], context: object
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """One response to each request, for the caller of the stream."""
        conversation = Conversation(self._view, self._contracts, current_caller())
        async for request in request_iterator:
            yield await conversation.answer(request)
            # Of a client that asks a lot at once, too, one answer is not all that is done.
            await asyncio.sleep(0)
