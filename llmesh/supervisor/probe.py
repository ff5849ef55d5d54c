"""How each kind of program is asked whether it answers, and whether it can take over from the one before it.

All of it by Unix sockets in the mesh directory: neither a token nor the mesh's
port has a part in it, so that what ails those ends no process.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmesh.caller import Caller, caller_to_metadata
from llmesh.home import Home
from llmesh.supervisor.processes import in_group

if TYPE_CHECKING:
    import grpc.aio

ASK_S = 2.0
RECONNECT_MS = 1000
# Sees every endpoint.
SUPERVISOR = Caller("dev", "llmesh-supervisor", roles=("platform",), domain="platform")


class EnvoyProbe:
    """Asks Envoy at its admin socket."""

    def __init__(self, home: Home, epoch: int) -> None:
        """epoch: which of the Envoys that succeed one another is meant."""
        self._socket = home.admin_socket
        self._epoch = epoch

    async def answers(self) -> bool | None:
        """Any answer will do: one that waits for the gateway says that it isn't ready."""
        try:
            return bool(await _get(self._socket, "/ready"))
        except TimeoutError:
            return False
        except OSError:
            # It starts, or its successor has taken the socket.
            return None

    async def started(self) -> bool:
        """One that waits for the gateway may yet have much to do."""
        return not await self.missing()

    async def missing(self) -> str:
        """Its listener opens once it has everything from the gateway."""
        try:
            info = json.loads(await _get(self._socket, "/server_info"))
            state, epoch = info["state"], info["command_line_options"].get("restart_epoch", 0)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return "does not answer"
        return "" if (state, epoch) == ("LIVE", self._epoch) else f"is {state.lower()}"

    async def close(self) -> None:
        """Nothing is open."""


class ServerProbe:
    """Asks a gRPC server at its Unix socket for its health."""

    def __init__(self, socket: Path) -> None:
        """Nothing is opened yet."""
        self._socket = socket
        self._channel: grpc.aio.Channel | None = None

    async def answers(self) -> bool | None:
        """Any answer will do: one that leaves says that it doesn't serve."""
        import grpc  # loaded when the mesh is up, lest the start of it wait

        if not self._socket.exists():
            return None
        check = cast("Callable[..., Awaitable[bytes]]", self._open().unary_unary("/grpc.health.v1.Health/Check"))
        try:
            # The empty message asks about the server as a whole.
            await check(b"", timeout=ASK_S)
        except grpc.aio.AioRpcError as err:
            if err.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                # One that hangs is connected to by the kernel, but says nothing.
                return False if _listens(self._socket) else None
        return True

    async def started(self) -> bool:
        """It answers when it has begun."""
        return True

    async def missing(self) -> str:
        """What answers can take over."""
        return "" if await self.answers() else "does not answer"

    async def close(self) -> None:
        """Close the channel."""
        if self._channel:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        import grpc.aio

        # A channel of its own: gRPC would share the connection, and its pauses, with others of the process.
        # One that could not be connected to is tried again soon, lest it be taken for one that hangs.
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.default_authority", "localhost"),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        )
        self._channel = self._channel or grpc.aio.insecure_channel(f"unix:{self._socket}", options=options)
        return self._channel


class GatewayProbe(ServerProbe):
    """Asks a gateway at its own socket."""

    def __init__(self, home: Home, pid: int) -> None:
        """pid: its process."""
        self._known, own = home.services_socket, home.own(home.services_socket, pid=pid)
        self._own = own.name
        super().__init__(own)

    async def missing(self) -> str:
        """It takes the known paths when it has a catalog to show."""
        leads_there = self._known.is_symlink() and self._known.readlink().name == self._own
        return await super().missing() or ("" if leads_there else "has no catalog to show")


class ToolProbe(ServerProbe):
    """Asks a tool, and the gateway whether what the tool serves can be called."""

    def __init__(self, home: Home, name: str, *, pid: int) -> None:
        """pid: what was started, the tool or what starts it: `sh -c`, `uv run`."""
        super().__init__(home.tool_socket(name, pid=pid))
        self._sockets, self._name, self._group = home.tools, name, pid
        self._gateway = ServerProbe(home.services_socket)

    async def answers(self) -> bool | None:
        """Any answer will do, of the tool itself."""
        self._find()
        return await super().answers()

    def _find(self) -> None:
        """Look for the socket among those of the processes that were started with it."""
        if self._socket.exists():
            return
        for path in self._sockets.glob(f"{self._name}-*.sock"):
            pid = path.stem.removeprefix(f"{self._name}-")
            if pid.isdigit() and in_group(int(pid), self._group):
                self._socket = path

    async def missing(self) -> str:
        """Its endpoint must be shown, and shown to be ready: then Envoy calls it."""
        import grpc

        from llmesh.api.catalog.v1 import catalog_pb2 as pb
        from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub

        self._find()
        request = pb.ListEndpointsRequest(address=f"unix:{self._socket}")
        stub = CatalogServiceStub(self._gateway._open())  # noqa: SLF001 one kind of probe asks as another does
        try:
            asked = stub.ListEndpoints(request, metadata=caller_to_metadata(SUPERVISOR), timeout=ASK_S)
            endpoints = (await asked).endpoints
        except grpc.aio.AioRpcError as err:
            return f"cannot be looked up: {err.details()}"
        if not endpoints:
            return "has not registered"
        failed = next((step for step in endpoints[0].steps if not step.passed), None)
        if failed:
            return f"was refused at `{failed.name}`: {failed.reason}: {failed.message}"
        state = endpoints[0].state
        return "" if state == pb.Endpoint.STATE_READY else f"is {pb.Endpoint.State.Name(state)[6:].lower()}"

    async def close(self) -> None:
        """Close the channels."""
        await self._gateway.close()
        await super().close()


def _listens(path: Path) -> bool:
    """Whether somebody has opened this socket, even if its queue is full."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


async def _get(socket: Path, path: str) -> bytes:
    """The body of what an HTTP server answers. Raises OSError; TimeoutError if there is no answer in time."""
    async with asyncio.timeout(ASK_S):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    return _whole(body) if b"transfer-encoding: chunked" in head else body


def _whole(chunks: bytes) -> bytes:
    """What came in chunks (RFC 9112, section 7.1)."""
    whole = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        whole += rest[:length]
        chunks = rest[length + 2 :] if length else b""
    return whole
