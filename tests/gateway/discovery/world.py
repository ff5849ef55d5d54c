"""Contracts made by hand, servers that reflect them truly or not, and a discovery that watches them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.catalog import Catalog, CatalogBoard, Endpoint, Grant, Report, State, Step
from gateway.clock import SystemClock
from gateway.discovery.discovery import Discovery
from gateway.reading.reflect import PATHS, Limits
from gateway.state import Store
from governance.ownership import Ownership, parse_ownership
from llmesh.api.options.v1 import options_pb2 as options
from tests.eventually import eventually

OWNERSHIP = """
owners:
  acme.support: support
  acme.handbook: handbook
  acme.engineering: engineering
"""
V1, V1ALPHA = PATHS
# Patience: what is waited for takes milliseconds on a machine that has time for it.
WAIT_S = 60.0

Answer = Callable[[ServerReflectionRequest], Awaitable[ServerReflectionResponse]]


def contract(
    package: str = "acme.support.v1",
    service: str = "Tickets",
    *,
    domain: str | None = None,
    fields: Iterable[str] = ("id",),
    imports: Iterable[str] = (),
    name: str | None = None,
) -> FileDescriptorProto:
    """A file with one service that has one method, Get. domain: its own word; "" for a contract without options."""
    file = FileDescriptorProto(name=name or f"{package.replace('.', '/')}/{service.lower()}.proto", package=package)
    file.syntax = "proto3"
    file.dependency.extend(["llmesh/api/options/v1/options.proto", *imports])
    for message in (f"{service}Request", f"{service}Response"):
        add_message(file, message, fields)
    definition = file.service.add(name=service)
    definition.method.add(
        name="Get", input_type=f".{package}.{service}Request", output_type=f".{package}.{service}Response"
    )
    said = package.split(".")[1] if domain is None else domain
    if said:
        definition.options.Extensions[options.tool].domain = said
    return file


def add_message(file: FileDescriptorProto, name: str, fields: Iterable[str]) -> None:
    message = file.message_type.add(name=name)
    for number, each in enumerate(fields, start=1):
        message.field.add(
            name=each, number=number, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
        )


def file_answer(*files: FileDescriptorProto | bytes) -> ServerReflectionResponse:
    answer = ServerReflectionResponse()
    for file in files:
        content = file if isinstance(file, bytes) else file.SerializeToString()
        answer.file_descriptor_response.file_descriptor_proto.append(content)
    return answer


def honest(*files: FileDescriptorProto, listed: Iterable[str] | None = None) -> Answer:
    """Reflection as it should be. listed: the services it names; all of the files' if None."""
    services = {f"{file.package}.{each.name}": file for file in files for each in file.service}
    names = {file.name: file for file in files}

    async def answer(request: ServerReflectionRequest) -> ServerReflectionResponse:
        response = ServerReflectionResponse()
        if request.HasField("list_services"):
            for name in services if listed is None else listed:
                response.list_services_response.service.add(name=name)
            return response
        found = services.get(request.file_containing_symbol) or names.get(request.file_by_filename)
        if found is not None:
            return file_answer(found)
        response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
        response.error_response.error_message = "not found"
        return response

    return answer


def lying(truth: Answer, lies: Mapping[str, ServerReflectionResponse | Answer]) -> Answer:
    """Reflection that answers as it likes about some symbols and files; "" is the list of services."""

    async def answer(request: ServerReflectionRequest) -> ServerReflectionResponse:
        about = request.file_containing_symbol or request.file_by_filename
        lie = lies.get(about)
        if lie is None:
            return await truth(request)
        return lie if isinstance(lie, ServerReflectionResponse) else await lie(request)

    return answer


class Health:
    """What a server says of itself as a whole, and, by their names, of some of its services."""

    def __init__(self, status: HealthCheckResponse.ServingStatus, *services: str) -> None:
        self._status: HealthCheckResponse.ServingStatus = status
        self._services = ("", *services)
        self._changed = asyncio.Event()

    def say(self, status: HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        self._changed.set()

    async def check(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse]
    ) -> HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return HealthCheckResponse(status=self._status)

    async def watch(self, _request: HealthCheckRequest, _context: object) -> AsyncIterator[HealthCheckResponse]:
        while True:
            self._changed.clear()
            yield HealthCheckResponse(status=self._status)
            await self._changed.wait()

    def handler(self) -> grpc.GenericRpcHandler:
        watch = grpc.unary_stream_rpc_method_handler(
            self.watch,
            request_deserializer=HealthCheckRequest.FromString,
            response_serializer=HealthCheckResponse.SerializeToString,
        )
        check: grpc.RpcMethodHandler[HealthCheckRequest, HealthCheckResponse] = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=HealthCheckRequest.FromString,
            response_serializer=HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Watch": watch, "Check": check})


@asynccontextmanager
async def serving(
    address: str, answer: Answer, *, paths: Iterable[str] = (V1,), health: Health | None = None
) -> AsyncGenerator[grpc.aio.Server]:
    """A server with this reflection, at an address, until the block ends."""
    server = grpc.aio.server()

    async def reflect(
        requests: AsyncIterator[ServerReflectionRequest], _context: object
    ) -> AsyncIterator[ServerReflectionResponse]:
        async for request in requests:
            yield await answer(request)

    handler = grpc.stream_stream_rpc_method_handler(
        reflect,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    for path in paths:
        _, service, method = path.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    if health is not None:
        server.add_generic_rpc_handlers((health.handler(),))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


class ListSource:
    """A source that names what it is told to."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints = frozenset(endpoints)
        self._changed = asyncio.Event()

    def name(self, *endpoints: Endpoint) -> None:
        self._endpoints = frozenset(endpoints)
        self._changed.set()

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        while True:
            self._changed.clear()
            yield self._endpoints
            await self._changed.wait()


@dataclass
class World:
    """A discovery that runs, and what it has found."""

    folder: Path
    source: ListSource
    board: CatalogBoard = field(default_factory=CatalogBoard)
    owners: Ownership = field(default_factory=lambda: parse_ownership(OWNERSHIP))
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.discovery = Discovery(
            self.board,
            [self.source],
            ownership=lambda: self.owners,
            limits=self.limits,
            store=Store(self.folder / "catalog.binpb"),
            clock=SystemClock(),
        )

    async def until(self, condition: Callable[[Catalog], object]) -> Catalog:
        """The first catalog that meets the condition."""
        async with asyncio.timeout(WAIT_S):
            async for catalog in self.board.watch():
                if condition(catalog):
                    return catalog
        raise AssertionError

    async def state(self, address: str, state: State) -> Report:
        """The endpoint's report once it is in that state."""

        def reached(catalog: Catalog) -> bool:
            return address in catalog.reports and catalog.reports[address].state is state

        return (await self.until(reached)).reports[address]

    async def failure(self, address: str, service: str = "") -> Step:
        """The step at which the service, or the whole endpoint, fails."""

        def failed(catalog: Catalog) -> list[Step]:
            steps = catalog.reports[address].steps if address in catalog.reports else ()
            return [step for step in steps if not step.passed and step.service == service]

        return failed(await self.until(failed))[0]

    async def stored(self, *words: str) -> None:
        """Wait until the catalog is on the disk with these words, such as addresses, in it."""

        async def on_the_disk() -> None:
            path = self.folder / "catalog.binpb"
            assert path.exists()
            content = path.read_bytes()
            assert [word for word in words if word.encode() not in content] == []

        await eventually(on_the_disk, within_s=WAIT_S)


@asynccontextmanager
async def discovering(world: World) -> AsyncGenerator[World]:
    """Run the world's discovery until the block ends."""
    task = asyncio.create_task(world.discovery.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def small_world(limits: Limits | None = None) -> AsyncGenerator[World]:
    """A discovery that nothing has been named to yet, in a folder of its own."""
    # Not pytest's own folder: its path can be too long for a socket.
    with TemporaryDirectory(prefix="llmesh-") as folder:
        async with discovering(World(Path(folder), ListSource(), limits=limits or Limits())) as world:
            yield world


def at(folder: Path, name: str = "tool", *grants: Grant) -> Endpoint:
    """An endpoint on a Unix socket in the folder."""
    return Endpoint(f"unix:{folder / name}.sock", "test", grants)
