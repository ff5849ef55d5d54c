"""Fan-outs through the real Envoy: tools that do as they are told, and the servicer, all in one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any as Untyped

import grpc
import grpc.aio
import pytest
from google.protobuf import text_format
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from gateway.catalog import CatalogBoard, Contract, Endpoint, Method, Tool
from gateway.clock import SystemClock
from gateway.fanout.counts import Counts
from gateway.fanout.legs import Legs
from gateway.fanout.lines import Lines
from gateway.fanout.sight import Sight
from gateway.fanout.takers import Takers
from gateway.reading.pinned import pinned
from gateway.services.mesh import MeshServicer
from gateway.services.platform import platform_tools
from gateway.services.tokens import mint
from gateway.services.visible import View
from gateway.snapshot.build import Policy, residues
from governance.bundle import parse_bundle
from governance.contract import sheet
from governance.contract.digest import digest
from governance.contract.normalise import normalise
from governance.contract.types import messages, service_in
from governance.decide import may_be_permitted
from governance.words import Caller
from llmesh import Server
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceStub
from llmesh.api.retrieval.v1.retrieval_pb2 import Citation, Passage, RetrieveRequest, RetrieveResponse
from llmesh.errors import MeshError
from llmesh.status import error_from_rpc
from tests.envoy import KEYS, Mesh, Metadata, bearer, mesh, policy_of, token
from tests.eventually import eventually

RETRIEVE = "llmesh.api.retrieval.v1.RetrieveRequest"
# What a tool does with a call: gives bytes, or fails.
Behaviour = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]
Streaming = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], AsyncIterator[bytes]]

EIGHT = [f"acme.support.v1.Tool{index}" for index in range(8)]
OPEN = policy_of(parse_bundle("version: 1\nrules: [{id: all, effect: permit, reason: everyone may}]", {}))
READ, WRITE, DESTRUCTIVE = "EFFECT_READ", "EFFECT_WRITE", "EFFECT_DESTRUCTIVE"


def any_of(message: Message) -> Any:
    """The message in an Any."""
    packed = Any()
    packed.Pack(message)
    return packed


def passages(*scored: tuple[str, float]) -> bytes:
    """An answer with passages of these texts and scores."""
    found = [
        Passage(text=text, score=score, citation=Citation(source="test", digest=f"digest of {text}"))
        for text, score in scored
    ]
    return RetrieveResponse(passages=found).SerializeToString()


def rpc(
    name: str = "Retrieve",
    *,
    effect: str = READ,
    streams: bool = False,
    takes: str = RETRIEVE,
    gives: str = "llmesh.api.retrieval.v1.RetrieveResponse",
    options: str = "",
) -> str:
    """A method, as the text of a MethodDescriptorProto. options: more of its LL-Mesh options."""
    return f"""method {{
      name: "{name}" input_type: ".{takes}" output_type: ".{gives}" server_streaming: {str(streams).lower()}
      options {{ [llmesh.api.options.v1.method] {{ effect: {effect} {options} }} }}
    }}"""


def contract_of(service: str, *methods: str, sheet: str = "", types: str = "") -> Contract:
    """The contract of a service that has these methods. sheet: of its options; types: more of its file."""
    package, _, name = service.rpartition(".")
    text = f"""
      name: "{service.replace(".", "/").lower()}.proto" package: "{package}" syntax: "proto3"
      dependency: "llmesh/api/options/v1/options.proto" dependency: "llmesh/api/retrieval/v1/retrieval.proto"
      {types}
      service {{
        name: "{name}" {" ".join(methods)}
        options {{ [llmesh.api.options.v1.tool] {{ name: "{name}" {sheet} }} }}
      }}
    """
    file = text_format.Parse(text, FileDescriptorProto())
    files = normalise([file, *pinned().values()], normal=pinned())
    return Contract(digest(files), files)


def tool_of(service: str, *methods: str, address: str, domain: str = "support", **facts: str) -> Tool:
    """The tool of that contract, at an address."""
    contract = contract_of(service, *(methods or (rpc(),)), **facts)
    found = service_in(contract.files, service)
    assert found
    classes = sheet.DataClasses(messages(contract.files))
    made: list[Method] = []
    for method in found[1].method:
        read = sheet.read_method(method, classes)
        made.append(
            Method(
                name=method.name,
                request_type=method.input_type[1:],
                response_type=method.output_type[1:],
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
                effect=read.effect,
                idempotent=read.idempotent,
                deadline=read.deadline,
                idle=read.idle,
                max_concurrency=read.max_concurrency,
                data_classes=read.data_classes,
                unclassified=read.unclassified,
                options=read.options,
            )
        )
    endpoint = Endpoint(address, "lease")
    stated = sheet.read_tool(found[1])
    return Tool(service, domain, stated, tuple(made), contract, (endpoint,), frozenset({endpoint}))


@dataclass(slots=True)
class Tools(grpc.GenericRpcHandler):
    """Answers calls of every method as ordered, by path; one without an order gives one passage of its own name."""

    address: str
    behaviours: dict[str, Behaviour] = field(default_factory=dict[str, Behaviour])
    streams: dict[str, Streaming] = field(default_factory=dict[str, Streaming])
    calls: Counter[str] = field(default_factory=Counter[str])
    # Calls that are being answered.
    open: Counter[str] = field(default_factory=Counter[str])

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Whatever is called."""
        path = str(handler_call_details.method)
        if path in self.streams:
            return grpc.unary_stream_rpc_method_handler(self._stream(path))  # pyright: ignore[reportArgumentType]
        return grpc.unary_unary_rpc_method_handler(self._answer(path))  # pyright: ignore[reportArgumentType]

    def _answer(self, path: str) -> Behaviour:
        async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.calls[path] += 1
            self.open[path] += 1
            try:
                if path in self.behaviours:
                    return await self.behaviours[path](data, context)
                return passages((path, 0.5))
            finally:
                self.open[path] -= 1

        return answer

    def _stream(self, path: str) -> Streaming:
        async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            self.calls[path] += 1
            self.open[path] += 1
            try:
                async for each in self.streams[path](data, context):
                    yield each
            finally:
                self.open[path] -= 1

        return answer

    @property
    def answering(self) -> int:
        """How many calls there are."""
        return self.open.total()


@dataclass(slots=True)
class Link:
    """What stands between gateway and Envoy: a socket that passes on what comes, until it is cut."""

    there: str
    open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        back, there = await asyncio.open_unix_connection(self.there)
        ends = {writer, there}
        self.open |= ends
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_copy(reader, there))
                ways.create_task(_copy(back, writer))
        finally:
            self.open -= ends

    def cut(self) -> None:
        """End every connection there is; a new one may be made."""
        for writer in self.open:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass(slots=True)
class World:
    """A mesh that fans out."""

    envoy: Mesh
    tools: Tools
    legs: Legs
    board: CatalogBoard
    services: str
    link: Link
    policy: Policy = field(default_factory=policy_of)
    counts: Counts = field(default_factory=Counts)

    async def publish(self, *tools: Tool, policy: Policy | None = None) -> None:
        """Serve these tools beside the mesh's own."""
        self.policy = policy or self.policy
        await self.envoy.publish(*tools, *platform_tools(self.services), policy=self.policy)
        await self.board.post({tool.service: tool for tool in sorted(tools, key=lambda each: each.service)}, {})

    def tool(self, service: str, *methods: str, **facts: str) -> Tool:
        """A tool that does as it is told."""
        return tool_of(service, *methods, address=facts.pop("address", self.tools.address), **facts)

    def permitted(self, tool: Tool, caller: Caller) -> frozenset[str]:
        """As the policy has it."""
        known = residues(tool, self.policy.bundle)
        return frozenset(name for name, residue in known.items() if may_be_permitted(residue, caller))

    def call(
        self,
        request: Message | None = None,
        *,
        metadata: Metadata | None = None,
        timeout_s: float = 60.0,
        **asked: Untyped,
    ) -> grpc.aio.UnaryStreamCall[pb.FanOutRequest, pb.FanOutResponse]:
        """A fan-out, as sam unless metadata says otherwise. asked: of the FanOutRequest."""
        sent = any_of(request or RetrieveRequest(query="anything"))
        return self.send(pb.FanOutRequest(request=sent, **asked), metadata=metadata, timeout_s=timeout_s)

    def send(
        self, request: pb.FanOutRequest, *, metadata: Metadata | None = None, timeout_s: float | None = 60.0
    ) -> grpc.aio.UnaryStreamCall[pb.FanOutRequest, pb.FanOutResponse]:
        """The same of a request as it is."""
        stub: Untyped = MeshServiceStub(self.envoy.channel)
        return stub.FanOut(request, metadata=bearer(token()) if metadata is None else metadata, timeout=timeout_s)

    async def logs_branches(self, address: str) -> None:
        """Return when all branches so far are logged as of this caller's address."""

        async def logged() -> None:
            lines = [line for line in self.envoy.logged() if line["path"] in self.tools.calls]
            assert len(lines) == self.tools.calls.total()
            assert {line["address"] for line in lines} == {address}

        await eventually(logged, within_s=20)

    async def released(self) -> None:
        """Return when no leg is left, and no tool answers anybody."""

        async def nothing() -> None:
            assert (self.legs.count, self.tools.answering) == (0, 0)

        await eventually(nothing, within_s=30)

    async def fan_out(self, request: Message | None = None, **asked: Untyped) -> Told:
        """All that a fan-out tells."""
        return told_of([message async for message in self.call(request, **asked)])


@dataclass(frozen=True, slots=True)
class Told:
    """A whole fan-out. branches: the last entry of each, by the method's name; items: all responses of each."""

    branches: MappingProxyType[str, pb.Branch]
    items: MappingProxyType[str, list[Any]]
    summary: pb.Summary
    messages: list[pb.FanOutResponse]

    @property
    def codes(self) -> dict[str, int]:
        """How each branch ended, by its tool's own name."""
        return {name.rpartition("/")[0].rpartition(".")[2]: each.status.code for name, each in self.branches.items()}


def told_of(messages: Sequence[pb.FanOutResponse]) -> Told:
    """What messages tell. The last one alone has a summary, and each branch ends once."""
    branches: dict[str, pb.Branch] = {}
    items: dict[str, list[Any]] = {}
    for message in messages:
        for branch in message.branches:
            name = f"{branch.tool}/{branch.method}"
            assert name not in branches, f"{name} goes on after its end"
            items.setdefault(name, []).extend(branch.responses)
            if branch.HasField("status"):
                branches[name] = branch
    assert [message.HasField("summary") for message in messages] == [*[False] * (len(messages) - 1), True]
    return Told(MappingProxyType(branches), MappingProxyType(items), messages[-1].summary, list(messages))


@asynccontextmanager
async def world(**facts: Untyped) -> AsyncGenerator[World]:
    """A mesh with no tool yet. facts: of its Edge."""
    async with mesh(**facts) as envoy:
        folder = envoy.folder
        tools = Tools(f"unix:{folder / 'tools.sock'}")
        server = grpc.aio.server(
            options=(("grpc.max_concurrent_streams", 10_000), ("grpc.max_receive_message_length", 2 << 20))
        )
        server.add_generic_rpc_handlers((tools,))
        server.add_insecure_port(tools.address)
        await server.start()
        services = f"unix:{folder / 'services.sock'}"
        link = Link(str(folder / "branches.sock"))
        between = await asyncio.start_unix_server(link.pass_on, folder / "link.sock")
        board, legs = CatalogBoard(), Legs(Lines(folder / "link.sock"))
        made = World(envoy, tools, legs, board, services, link)
        view = View(board, made.permitted, own=platform_tools(services))
        takers = Takers(lambda: board.current.tools)
        sight = Sight(takers, view.permitted, rules=lambda: made.policy)
        servicer = MeshServicer(
            *(sight, legs), lambda delegation: mint(delegation, KEYS.signing()), made.counts, clock=SystemClock()
        )
        folder.chmod(0o700)
        try:
            async with Server(servicer, address=services, drain_limit_s=0.1):
                yield made
        finally:
            await legs.close()
            between.close()
            await server.stop(0)


async def hang(_: bytes, _context: object) -> bytes:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def eight() -> AsyncGenerator[World]:
    """Eight tools that read, and answer."""
    async with world() as running:
        await running.publish(*(running.tool(name) for name in EIGHT))
        yield running


async def refused(running: World, **asked: Untyped) -> MeshError:
    """Why nothing was sent."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await running.fan_out(**asked)
    assert not running.tools.calls
    return error_from_rpc(failed.value)


def told_as(error: MeshError) -> tuple[grpc.StatusCode, str]:
    return error.code, error.reason
