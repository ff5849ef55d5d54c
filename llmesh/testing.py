"""Run a tool inside a test, on a real socket, as the mesh would call it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from llmesh._client import MeshChannel, open_channel
from llmesh._server import Server
from llmesh.caller import Caller, caller_to_metadata

__all__ = ["TESTER", "ToolUnderTest", "run"]

TESTER = Caller(issuer="llmesh.testing", subject="tester")


class ToolUnderTest:
    """A running tool: stubs take its channel, whose calls come from one caller."""

    def __init__(self, server: Server, channel: grpc.aio.Channel, caller: Caller) -> None:
        """For a server that runs, and a channel to it."""
        self.server = server
        self.raw_channel = channel
        self.channel = self.as_(caller)

    def as_(self, caller: Caller) -> grpc.aio.Channel:
        """A channel whose calls come from this caller. Its failures are MeshErrors."""
        headers = caller_to_metadata(caller)
        return MeshChannel(self.raw_channel, metadata=lambda: headers)


@asynccontextmanager
async def run(*servicers: object, caller: Caller = TESTER, drain_limit_s: float = 1.0) -> AsyncGenerator[ToolUnderTest]:
    """Serve the servicers for as long as the `async with` lasts; no mesh is needed.

    caller: who calls on `.channel`; `.as_(other)` gives another's channel.
    drain_limit_s: how long calls left over at the end may go on.
    """
    # Not pytest's own folder: its path can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        address = f"unix:{Path(folder) / 's' / 'tool.sock'}"
        async with Server(*servicers, address=address, drain_limit_s=drain_limit_s) as server:
            channel = open_channel(server.address)
            try:
                yield ToolUnderTest(server, channel, caller)
            finally:
                await channel.close()
