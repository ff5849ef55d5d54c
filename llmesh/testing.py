"""Run a tool inside a test, on a real socket, as the mesh would call it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf import descriptor_pool

from llmesh._client import MeshChannel, Metadatum, open_channel
from llmesh._delegation import DELEGATION_KEY, MESH_KEY
from llmesh._own_mesh import OwnMesh
from llmesh._server import Server
from llmesh._services import find_services
from llmesh._stand_in import FanOuts
from llmesh.api.identity.v1 import identity_pb2
from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceServicer
from llmesh.api.options.v1 import options_pb2
from llmesh.caller import Caller, caller_to_metadata

if TYPE_CHECKING:
    from llmesh.prompt import Prompt

__all__ = ["TESTER", "ToolUnderTest", "run"]

TESTER = Caller(issuer="llmesh.testing", subject="tester")
# Longer than any test.
_IDENTITY_LASTS_S = 86_400


class ToolUnderTest:
    """A running tool: stubs take its channel, whose calls come from one caller."""

    def __init__(self, server: Server, channel: grpc.aio.Channel, caller: Caller, *, mesh: str = "") -> None:
        """For a server that runs, and a channel to it. mesh: address of what stands in for the mesh; none if empty."""
        self.server = server
        self.raw_channel = channel
        self._mesh = mesh
        self.channel = self.as_(caller)

    def as_(self, caller: Caller) -> grpc.aio.Channel:
        """A channel whose calls come from this caller. Its failures are MeshErrors."""
        headers = caller_to_metadata(caller)
        return MeshChannel(self.raw_channel, metadata=lambda path: (*headers, *self._delegation(path)))

    def _delegation(self, path: str) -> tuple[Metadatum, ...]:
        if not self._mesh or not _uses(path):
            return ()
        return ((DELEGATION_KEY, "a test's"), (MESH_KEY, self._mesh))


def _uses(path: str) -> bool:
    """Whether the contract of a method, by its path, says that it calls others."""
    service, _, method = path[1:].partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(method)
    return found is not None and bool(found.GetOptions().Extensions[options_pb2.method].uses)


async def _identify(service: str, mesh: str, channel: grpc.aio.Channel) -> None:
    """Say who a tool is, as the gateway does. mesh: address of what stands in for it."""
    request = identity_pb2.TakeIdentityRequest(service=service, token="a test's", mesh=mesh)  # noqa: S106 no secret
    request.lasts.FromSeconds(_IDENTITY_LASTS_S)
    await IdentityServiceStub(channel).TakeIdentity(request)


@asynccontextmanager
async def _stand_ins(servicers: tuple[object, ...], sockets: Path, *, drain_limit_s: float) -> AsyncGenerator[str]:
    """Serve what stands in for the mesh and its tools; its address. Fan-outs too, unless a servicer serves them."""
    address = f"unix:{sockets / 'mesh.sock'}"
    async with open_channel(address) as itself:
        own = any(isinstance(each, MeshServiceServicer) for each in servicers)
        fan_outs = () if own else (FanOuts(tuple(find_services(servicers)), itself),)
        async with Server(*servicers, *fan_outs, address=address, drain_limit_s=drain_limit_s):
            yield address


@asynccontextmanager
async def run(
    *servicers: object,
    prompts: tuple[Prompt, ...] = (),
    caller: Caller = TESTER,
    mesh: tuple[object, ...] = (),
    own_mesh: OwnMesh | None = None,
    drain_limit_s: float = 1.0,
) -> AsyncGenerator[ToolUnderTest]:
    """Serve the servicers for as long as the `async with` lasts; no mesh is needed.

    prompts: as llmesh.Server has them.
    caller: who calls on `.channel`; `.as_(other)` gives another's channel.
    mesh: servicers that stand in for the tools that these call, in methods
    whose contract says `uses`. They answer whatever is called: that the
    contract lists it, and that it is permitted, is for the mesh to see to. A
    fan-out asks all of them that take its request, selected or not, and merges
    nothing.
    own_mesh: as llmesh.Server has it; its calls go to the same stand-ins, and fail
    where there are none.
    drain_limit_s: how long calls left over at the end may go on.
    """
    # Not pytest's own folder: its path can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        sockets = Path(folder) / "s"
        async with AsyncExitStack() as running:
            others = ""
            if mesh:
                others = await running.enter_async_context(_stand_ins(mesh, sockets, drain_limit_s=drain_limit_s))
            tool = Server(
                *servicers,
                prompts=prompts,
                address=f"unix:{sockets / 'tool.sock'}",
                drain_limit_s=drain_limit_s,
                own_mesh=own_mesh,
            )
            server = await running.enter_async_context(tool)
            channel = open_channel(server.address)
            try:
                if own_mesh and others:
                    await _identify(own_mesh.service, others, channel)
                yield ToolUnderTest(server, channel, caller, mesh=others)
            finally:
                await channel.close()
