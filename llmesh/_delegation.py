"""What a servicer calls for its caller: the mesh, with the token that the mesh gave the call.

The token goes to the mesh and nowhere else: not to the servicer, and into no log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import grpc

from llmesh._client import AUTHORITY_VARIABLE, Mesh, MeshChannel
from llmesh.certificates import own_certificate
from llmesh.errors import ToolFailed, Unavailable
from llmesh.fanout import FansOut, Opened
from llmesh.home import Home

__all__ = ["AWAY_KEY", "DELEGATION_KEY", "MESH_KEY", "DelegatedMesh", "Meshes", "Shared"]

DELEGATION_KEY = "llmesh-delegation"
# Where the mesh that gave the token is to be found.
MESH_KEY = "x-llmesh-mesh"
# What Envoy says of a call that it let through without asking the gateway for a token: it is away.
AWAY_KEY = "x-envoy-auth-failure-mode-allowed"
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class DelegatedMesh(FansOut):
    """The mesh, for the caller of the call that is being answered.

    channel: stubs take it. Their calls are the caller's, made by this tool, and
    fail as those of llmesh.Mesh do. They have the time that the call has left,
    unless they say a timeout.
    """

    channel: grpc.aio.Channel = field(repr=False)

    def ways(self) -> tuple[Callable[[], grpc.aio.Channel], Opened]:
        """Its channel: where calls are answered, a loop runs."""
        return (lambda: self.channel), (lambda: nullcontext(self.channel))


class Meshes:
    """The connections to the mesh that the calls of one server share: one an address, made with the first call."""

    def __init__(self, home: Home | None) -> None:
        """home: whose mesh shows its certificate there; None to believe others' authorities alone."""
        self._home = home
        self._open: dict[str, grpc.aio.Channel] = {}

    def delegated(
        self, method: str, metadata: Mapping[str, str], remaining: Callable[[], float | None]
    ) -> DelegatedMesh:
        """The mesh for the caller of a call. metadata: the call's.

        Raises Unavailable if the gateway was away, which gives a call its token, and ToolFailed if the call is to have
        none.
        """
        token, address = metadata.get(DELEGATION_KEY, ""), metadata.get(MESH_KEY, "")
        if AWAY_KEY in metadata:
            message = f"the gateway is away, without which {method[1:]} cannot call the others that it uses"
            facts = {"method": method}
            raise Unavailable(message, retry_after_s=_RETRY_AFTER_S, reason="NO_DELEGATION", metadata=facts)
        if not token or not address:
            message = (
                f"{method[1:]} was given no right to call other tools: list them in its contract under `uses`, "
                "and call it through the mesh"
            )
            raise ToolFailed(message, reason="NO_DELEGATION", metadata={"method": method})
        given = ((DELEGATION_KEY, token),)
        return DelegatedMesh(Shared(self.connected(address), metadata=lambda _: given, remaining=remaining))

    def connected(self, address: str) -> grpc.aio.Channel:
        """The connection to the mesh at an address, `host:port`, with `https://` before it where it speaks TLS."""
        if address not in self._open:
            certificate, name = None, ""
            if self._home and not os.environ.get(AUTHORITY_VARIABLE):
                certificate, name = own_certificate(self._home)
            tls = address.startswith("https://")
            mesh = Mesh(address, root_certificates=certificate if tls else None, server_name=name)
            self._open[address] = mesh.connect()
        return self._open[address]

    async def close(self) -> None:
        """Close them; calls in flight are cancelled."""
        while self._open:
            await self._open.popitem()[1].close()


class Shared(MeshChannel):
    """A call's own view of a connection that others use too."""

    async def close(self, grace: float | None = None) -> None:
        """Nothing: the server closes what its calls share."""
