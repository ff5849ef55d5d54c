"""Tools of one process with the test that uses them: it sees what they are asked, and when they are let go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any as Untyped

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server  # pyright: ignore[reportUnknownVariableType]
from grpc_reflection.v1alpha.reflection_pb2_grpc import (
    add_ServerReflectionServicer_to_server,  # pyright: ignore[reportUnknownVariableType]
)

from llmesh._health import HealthServicer
from llmesh._lease import Lease
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceStub
from llmesh.readiness import Readiness
from llmesh.reflection import reflect
from tests.bench.fanout_tools import ANSWER, PACKAGE, contract, services
from tests.e2e.mesh import OWNER, RunningMesh

COUNT = 8
FAN = services(COUNT)
descriptor_pool.Default().AddSerializedFile(contract(COUNT).SerializeToString())
# Each caller has connections of its own.
ALONE = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(eq=False, slots=True)
class Fan(grpc.GenericRpcHandler):
    """Answers Ask at once and Slow once it may; Stream goes on until nobody listens.

    open: calls that are being answered, by path. written: how often each request of a write came, by path and request.
    """

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    open: Counter[str] = field(default_factory=Counter[str])
    written: Counter[tuple[str, bytes]] = field(default_factory=Counter[tuple[str, bytes]])

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path."""
        path = str(handler_call_details.method)
        if not path.startswith(f"/{PACKAGE}.Fan"):
            return None
        if path.endswith("/Stream"):
            return grpc.unary_stream_rpc_method_handler(self._stream(path))  # pyright: ignore[reportArgumentType]
        return grpc.unary_unary_rpc_method_handler(self._answer(path))  # pyright: ignore[reportArgumentType]

    def _answer(self, path: str) -> Untyped:
        async def answer(data: bytes, _context: object) -> bytes:
            self.open[path] += 1
            try:
                if path.endswith("/Slow"):
                    await self.may_answer.wait()
                if path.endswith("/Write"):
                    self.written[path, data] += 1
                return ANSWER
            finally:
                self.open[path] -= 1

        return answer

    def _stream(self, path: str) -> Untyped:
        async def answer(_data: bytes, _context: object) -> AsyncIterator[bytes]:
            self.open[path] += 1
            try:
                while True:
                    yield ANSWER
                    await asyncio.sleep(0.01)
            finally:
                self.open[path] -= 1

        return answer

    @asynccontextmanager
    async def serving(self, mesh: RunningMesh, *names: str) -> AsyncGenerator[None]:
        """Serve these services on the mesh for as long as the block lasts, then leave it as tools do."""
        server: Untyped = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        add_ServerReflectionServicer_to_server(reflect(names), server)
        add_HealthServicer_to_server(HealthServicer(names, Readiness()), server)
        address = f"unix:{mesh.home.tool_socket(names[0].rpartition('.')[2])}"
        server.add_insecure_port(address)
        await server.start()
        lease = Lease(mesh.home.registry_socket, address)
        holding = asyncio.create_task(lease.hold())
        try:
            await asyncio.to_thread(mesh.wait_ready, *names)
            yield
        finally:
            lease.end()
            await holding
            await server.stop(10)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who fans out and may write, by a connection of their own."""

    mesh: RunningMesh
    channel: grpc.aio.Channel

    def call(self, method: str, *, text: bytes = b"a", timeout_s: float = 30, **asked: Untyped) -> Untyped:
        """A fan-out of a method's request, as a call that streams."""
        value = b"\n" + bytes([len(text)]) + text
        request = Any(type_url=f"type.googleapis.com/{PACKAGE}.{method}Request", value=value)
        stub: Untyped = MeshServiceStub(self.channel)
        sent = pb.FanOutRequest(request=request, **asked)
        return stub.FanOut(sent, metadata=self.mesh.bearer(OWNER), timeout=timeout_s)

    async def told(self, method: str, **asked: Untyped) -> Sequence[pb.FanOutResponse]:
        """All that a fan-out tells."""
        return [message async for message in self.call(method, **asked)]

    async def codes(self, method: str, **asked: Untyped) -> dict[str, int]:
        """How each branch of a fan-out ended, by its tool."""
        told = await self.told(method, **asked)
        assert told[-1].HasField("summary")
        return {each.tool: each.status.code for message in told for each in message.branches if each.HasField("status")}


@asynccontextmanager
async def caller(mesh: RunningMesh) -> AsyncGenerator[Caller]:
    """A caller, for as long as the block lasts."""
    options = (*ALONE, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))
    async with grpc.aio.insecure_channel(mesh.address, options=options) as channel:
        yield Caller(mesh, channel)
