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
from llmesh._client import DEFAULT_ADDRESS, is_local
from llmesh.home import Home
from llmesh.identity import DevIssuer, Logins
from llmesh.problem import Problem

TOKEN_VARIABLE = "LLMESH_TOKEN"  # noqa: S105 a name, no token

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """One caller at one mesh."""

    address: str
    token: str

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        """A channel to the mesh. Its calls carry the token; those that fail raise MeshError."""
        if not is_local(self.address):
            raise Problem(
                f"your token would travel to `{self.address}` in the clear",
                "only a mesh on this machine can be called without TLS, and commands have none",
            )
        try:
            mesh = Mesh(self.address, self.token)
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


def open_session(home: Path | None = None, address: str = "", *, name: str = "") -> Session:
    """The mesh at address, else the one that runs here, as the caller `name`, else the current login.

    $LLMESH_TOKEN, where it is set, is the token unless a name is given.
    """
    found = Home.find(home)
    return Session(address or mesh_address(found), _token(found, name))


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
