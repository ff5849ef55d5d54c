"""The mesh, for a tool in its own right: what it calls while nobody calls it.

The gateway gives the tool a token, over a connection to the tool's own address,
and a newer one long before that ends. It is kept in memory alone, and goes to
the mesh and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field

import grpc
from google.protobuf import descriptor_pool

from llmesh._client import Metadatum
from llmesh._delegation import DELEGATION_KEY, Meshes, Shared
from llmesh._services import ServeError
from llmesh.api.identity.v1 import identity_pb2 as pb
from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from llmesh.api.options.v1 import options_pb2
from llmesh.call import current_call
from llmesh.errors import Denied, Unavailable, Unimplemented
from llmesh.fanout import FansOut, Opened

__all__ = ["IdentityServicer", "OwnMesh"]

# When to ask again who has no identity; a gateway that comes back gives one sooner than that.
_RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a tool calls by. ends_s: by time.monotonic()."""

    token: str = field(repr=False)
    connection: grpc.aio.Channel = field(repr=False)
    ends_s: float


class OwnMesh(FansOut):
    """The mesh, as the tool itself: `own = OwnMesh()`, `serve(MyServicer(own), own_mesh=own)`, `Stub(own.channel)`.

    For what a tool does while it answers no call, as in the background at its start. It may call what its methods
    list under `uses`; of these, what the rules permit to the tool itself, a caller of the issuer `llmesh` with the
    service's name and without roles. Calls fail as those of llmesh.Mesh do; those in flight when the server stops are
    cancelled. For the event loop that serves alone.
    """

    def __init__(self, service: str = "") -> None:
        """Nobody has said yet who the tool is. service: its full name; may be empty where the server has no other."""
        self.service = service
        self._identity: _Identity | None = None
        self._taken = asyncio.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """What stubs take. Raises Unavailable, reason NO_IDENTITY, as a call does, while no gateway says who this is.

        To be asked for anew when `wait` had to be: the mesh may be elsewhere then.
        """
        return Shared(self._current().connection, metadata=self._metadata)

    async def wait(self, *, timeout_s: float) -> None:
        """Return once calls can be made. Raises Unavailable, reason NO_IDENTITY, if that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._good() is None:
                    await self._taken.wait()
        except TimeoutError:
            self._current()

    def ways(self) -> tuple[Callable[[], grpc.aio.Channel], Opened]:
        """Its channel: where a tool serves, a loop runs."""
        return (lambda: self.channel), (lambda: nullcontext(self.channel))

    def take(self, token: str, connection: grpc.aio.Channel, *, lasts_s: float) -> None:
        """Call by the token from now on, for so long. connection: to the mesh."""
        self._identity = _Identity(token, connection, time.monotonic() + lasts_s)
        self._taken.set()
        self._taken = asyncio.Event()

    def forget(self) -> None:
        """Call nothing until somebody says again who the tool is."""
        self._identity = None

    def _metadata(self, _: str) -> tuple[Metadatum, ...]:
        return ((DELEGATION_KEY, self._current().token),)

    def _current(self) -> _Identity:
        """Raises Unavailable."""
        identity = self._good()
        if identity is None:
            message = (
                f"no gateway says who `{self.service or 'this tool'}` is: it may call nothing in its own right now"
            )
            raise Unavailable(message, reason="NO_IDENTITY", retry_after_s=_RETRY_AFTER_S)
        return identity

    def _good(self) -> _Identity | None:
        identity = self._identity
        return identity if identity is not None and time.monotonic() < identity.ends_s else None


class IdentityServicer(IdentityServiceServicer):
    """Hears from the gateway who one of a server's tools is."""

    def __init__(self, own: OwnMesh, services: Collection[str], meshes: Meshes) -> None:
        """own: is told, and is one of these services; meshes: the server's connections.

        Raises ServeError if it is none of them, or may call nothing.
        """
        self._own = own
        self._meshes = meshes
        own.service = _named(own.service, services)

    async def TakeIdentity(self, request: pb.TakeIdentityRequest, context: object) -> pb.TakeIdentityResponse:
        """Only the gateway may say it; whatever comes through the mesh has a call's id."""
        if current_call().call_id:
            raise Denied("only the gateway says who a tool is", reason="NOT_THE_GATEWAY")
        if request.service != self._own.service:
            raise Unimplemented(f"`{request.service}` calls nothing in its own right here")
        lasts_s = request.lasts.ToMicroseconds() / 1e6
        self._own.take(request.token, self._meshes.connected(request.mesh), lasts_s=lasts_s)
        return pb.TakeIdentityResponse()

    def end(self) -> None:
        """The server closes its connections: the tool calls nothing any more."""
        self._own.forget()


def _named(service: str, services: Collection[str]) -> str:
    """The full name of the one that calls in its own right. Raises ServeError."""
    found = [each for each in services if service in ("", each)]
    if len(found) != 1:
        known = ", ".join(f"`{each}`" for each in services)
        message = f"`own_mesh` says which of the tools here it is, as in llmesh.OwnMesh('a.b.v1.C'): {known}"
        raise ServeError(message)
    methods = descriptor_pool.Default().FindServiceByName(found[0]).methods
    if not any(method.GetOptions().Extensions[options_pb2.method].uses for method in methods):
        message = f"no method of `{found[0]}` lists another under `uses`: it may call nothing in its own right"
        raise ServeError(message)
    return found[0]
