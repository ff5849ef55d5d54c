"""Server reflection for the whole mesh, as each caller may see it.

The files come from the contracts in the catalog; no tool is asked. v1 and
v1alpha are the same bytes, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionServicer

from gateway.catalog import Contract
from gateway.services.caller import current_caller
from gateway.services.symbols import File, Shelf, Symbols
from gateway.services.visible import Seen, View
from governance.words import Caller

_NOT_FOUND = int(grpc.StatusCode.NOT_FOUND.value[0])
_INVALID = int(grpc.StatusCode.INVALID_ARGUMENT.value[0])


class UnknownNameError(Exception):
    """What a request asks for is not there, or not for this caller."""


@dataclass(slots=True)
class Conversation:
    """One reflection stream of one caller."""

    view: View
    shelf: Shelf
    caller: Caller
    _last: Contract | None = field(default=None, init=False)

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """The response to one request, a refusal included; never raises for what a client may send."""
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._fill(response, request)
        except UnknownNameError as err:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = str(err)
        return response

    def _fill(self, response: pb.ServerReflectionResponse, request: pb.ServerReflectionRequest) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                names = (pb.ServiceResponse(name=seen.tool.service) for seen in self.view.tools(self.caller))
                response.list_services_response.service.extend(names)
                response.list_services_response.SetInParent()
            case "file_containing_symbol":
                self._send(response, self._files_of_symbol(request.file_containing_symbol))
            case "file_by_filename":
                self._send(response, self._files_by_name(request.file_by_filename))
            case "file_containing_extension":
                asked = request.file_containing_extension
                self._send(response, self._files_of_extension(asked.containing_type, asked.extension_number))
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                response.all_extension_numbers_response.base_type_name = name
                response.all_extension_numbers_response.extension_number.extend(self._numbers(name))
            case _:
                response.error_response.error_code = _INVALID
                response.error_response.error_message = "the request asks for nothing"

    def _files_of_symbol(self, symbol: str) -> Iterator[File]:
        for seen in self._likeliest_first(symbol):
            symbols = self._symbols(seen)
            if file := symbols.defining(symbol):
                return self._answer(seen, symbols, file)
        raise UnknownNameError(f"symbol `{symbol}` is not on the mesh")

    def _files_by_name(self, name: str) -> Iterator[File]:
        for seen in self._last_first():
            symbols = self._symbols(seen)
            if file := symbols.files.get(name):
                return self._answer(seen, symbols, file)
        raise UnknownNameError(f"file `{name}` is not on the mesh")

    def _files_of_extension(self, type_name: str, number: int) -> Iterator[File]:
        for seen in self._last_first():
            symbols = self._symbols(seen)
            if file := symbols.extending(type_name, number):
                return self._answer(seen, symbols, file)
        raise UnknownNameError(f"extension {number} of `{type_name}` is not on the mesh")

    def _numbers(self, type_name: str) -> list[int]:
        known = [self._symbols(seen).numbers(type_name) for seen in self.view.tools(self.caller)]
        found = [numbers for numbers in known if numbers is not None]
        if not found:
            raise UnknownNameError(f"type `{type_name}` is not on the mesh")
        return sorted(set[int]().union(*found))

    def _answer(self, seen: Seen, symbols: Symbols, file: File) -> Iterator[File]:
        self._last = seen.tool.contract
        return symbols.closure(file)

    def _send(self, response: pb.ServerReflectionResponse, files: Iterable[File]) -> None:
        response.file_descriptor_response.file_descriptor_proto.extend(_bytes(file.proto) for file in files)

    def _symbols(self, seen: Seen) -> Symbols:
        """What the caller may see of the tool's contract."""
        whole = self.shelf.symbols(seen.tool.contract)
        return whole.seen(lambda service: self.view.tool(service, self.caller) is not None)

    def _likeliest_first(self, symbol: str) -> Iterator[Seen]:
        """The tool that the symbol is or is a method of, its package's tools, then all."""
        for service in (symbol, symbol.rpartition(".")[0]):
            if seen := self.view.tool(service, self.caller):
                yield seen
        everything = list(self.view.tools(self.caller))
        for own in (True, False):
            for seen in everything:
                if symbol.startswith(seen.tool.service.rpartition(".")[0] + ".") is own:
                    yield seen

    def _last_first(self) -> Iterator[Seen]:
        """The tools of the contract that answered last on this stream, then all.

        Two contracts may hold different files of one name; a client that
        follows imports means the ones of the file it has just been given.
        """
        everything = list(self.view.tools(self.caller))
        last = self._last
        if last is not None:
            yield from (seen for seen in everything if seen.tool.contract.digest == last.digest)
        yield from everything


def _bytes(proto: FileDescriptorProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


class MeshReflectionServicer(ServerReflectionServicer):
    """Answers reflection streams, of either version."""

    def __init__(self, view: View) -> None:
        """Answer from the view."""
        self._view = view
        self._shelf = Shelf()
        self._version = -1

    async def ServerReflectionInfo(
        self, request_iterator: AsyncIterator[pb.ServerReflectionRequest], context: object
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """One response to each request, for the caller of the stream."""
        conversation = Conversation(self._view, self._shelf, current_caller())
        async for request in request_iterator:
            self._forget_old_contracts()
            yield conversation.answer(request)

    def _forget_old_contracts(self) -> None:
        catalog = self._view.catalog
        if catalog.version != self._version:
            self._shelf.keep({tool.contract.digest for tool in catalog.tools.values()})
            self._version = catalog.version
