"""Who calls which mesh: what every command that makes calls needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc.aio

from llmesh import Mesh
from llmesh._client import DEFAULT_ADDRESS, MeshChannel, is_local, open_channel
from llmesh.caller import Caller, caller_to_metadata
from llmesh.certificates import own_certificate
from llmesh.home import Home
from llmesh.identity import DevCaller, DevIssuer, Logins
from llmesh.problem import Problem

TOKEN_VARIABLE = "LLMESH_TOKEN"  # noqa: S105 a name, no token
# Sees every endpoint, whoever is signed in.
SUPERVISOR = DevCaller("llmesh-supervisor", roles=("platform",), domain="platform")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """One caller at one mesh.

    home: the mesh's directory, if it is one of this machine. caller: who calls,
    where the address is a socket on which the mesh's own processes are believed.
    """

    address: str
    token: str
    home: Home | None = None
    caller: Caller | None = None

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        """A channel to the mesh, over TLS beyond this machine. Its calls carry the token, and raise MeshError."""
        if self.caller:
            metadata = caller_to_metadata(self.caller)
            async with MeshChannel(open_channel(self.address), metadata=lambda _: metadata) as own:
                yield own
            return
        # None else need vouch for the mesh of this directory.
        own = self.home if self.address.startswith("https://") else None
        certificate, name = own_certificate(own) if own else (None, "")
        try:
            mesh = Mesh(
                self.address,
                self.token,
                tls=not is_local(self.address),
                root_certificates=certificate,
                server_name=name,
            )
        except ValueError as err:
            raise Problem(str(err)) from err
        async with mesh:
            yield mesh.channel

    def run(self, work: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """Do work with a channel to the mesh, from start to end."""

        async def within() -> T:
            async with self.channel() as channel:
                return await work(channel)

        return asyncio.run(within())


def supervisor_session(home: Home, address: str) -> Session:
    """The supervisor's own caller, who sees every endpoint, at the mesh of this directory.

    Beyond loopback nobody believes the development issuer. There it is the
    gateway that is asked, on its socket, which only this user can open.
    """
    if is_local(address):
        return Session(address, DevIssuer.open(home).mint(SUPERVISOR), home)
    caller = Caller(subject=SUPERVISOR.name, roles=SUPERVISOR.roles, domain=SUPERVISOR.domain)
    return Session(f"unix:{home.services_socket}", "", home, caller)


def open_session(home: Path | None = None, address: str = "", *, name: str = "") -> Session:
    """The mesh at address, else the one that runs here, as the caller `name`, else the current login.

    $LLMESH_TOKEN, where it is set, is the token unless a name is given.
    """
    from llmesh.supervisor.state import read_state

    found = Home.find(home)
    chosen = address or mesh_address(found)
    own = read_state(found)
    return Session(chosen, _token(found, name), found if own and own.address == chosen else None)


def mesh_address(home: Home) -> str:
    """Where the mesh of this directory listens; without a directory, where one would.

    Raises Problem if it is not up: its address may by now be another program's,
    which is to have no token.
    """
    from llmesh.supervisor.state import read_state

    state = read_state(home)
    if state:
        return state.address
    if home.exists:
        raise Problem(f"no mesh is up at `{home.path}`", "start one: llmesh up; or say where it is: --address")
    return DEFAULT_ADDRESS


def _token(home: Home, name: str) -> str:
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given and not name:
        return given
    if not home.exists:
        raise Problem(
            f"there is no mesh directory at `{home.path}`",
            f"start a mesh here (llmesh up), name its directory (--home), or set {TOKEN_VARIABLE} to a token",
        )
    return DevIssuer.open(home).mint(Logins.load(home).get(name))
