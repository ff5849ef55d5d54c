"""A process that serves a part of the fleet: `python -m tests.bench.fleet_server FOLDER FIRST COUNT EACH`.

Serves tools FIRST to FIRST + COUNT, EACH of them to a Unix socket
FOLDER/<first number>.sock, with reflection and health as the SDK has them;
says `ready` when all listen. Then it does what each line of its input says:
`add NUMBER HOME` serves one more tool with a lease in that mesh directory and
says on which moment of the monotonic clock it was ready; `drop` ends that one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any as Untyped

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server  # pyright: ignore[reportUnknownVariableType]
from grpc_reflection.v1alpha.reflection_pb2_grpc import (
    add_ServerReflectionServicer_to_server,  # pyright: ignore[reportUnknownVariableType]
)

from llmesh._health import HealthServicer
from llmesh._lease import Lease
from llmesh.home import Home
from llmesh.readiness import Readiness
from llmesh.reflection import reflect
from tests.bench.fleet_contracts import METHODS, contract, service_of


class _Methods(grpc.GenericRpcHandler):
    """Answers the methods of the tools with what they were asked."""

    def __init__(self, services: Iterable[str]) -> None:
        paths = (f"/{service}/{method}" for service in services for method in METHODS)
        untyped: Untyped = grpc
        self._handlers: Mapping[str, Untyped] = dict.fromkeys(paths, untyped.unary_unary_rpc_method_handler(_echo))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(str(handler_call_details.method))


async def _echo(request: bytes, _context: object) -> bytes:
    return request


async def serve(socket: Path, numbers: Iterable[int]) -> grpc.aio.Server:
    """A server of these tools that listens."""
    numbers = tuple(numbers)
    for number in numbers:
        descriptor_pool.Default().AddSerializedFile(contract(number).SerializeToString())
    services = tuple(map(service_of, numbers))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Methods(services),))
    add_ServerReflectionServicer_to_server(reflect(services), server)
    add_HealthServicer_to_server(HealthServicer(services, Readiness()), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return server


async def add(number: int, home: Home) -> tuple[grpc.aio.Server, Lease, asyncio.Task[None]]:
    """Serve one more tool, and take a lease for it."""
    socket = home.tools / f"{number}.sock"
    server = await serve(socket, [number])
    say(f"added {time.monotonic()}")
    lease = Lease(home.registry_socket, f"unix:{socket}")
    return server, lease, asyncio.create_task(lease.hold())


def say(line: str) -> None:
    """Tell whoever started us."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(folder: Path, first: int, count: int, each: int) -> None:
    """Serve until there is no more input."""
    servers = [
        await serve(folder / f"{number}.sock", range(number, min(number + each, first + count)))
        for number in range(first, first + count, each)
    ]
    say("ready")
    added: tuple[grpc.aio.Server, Lease, asyncio.Task[None]] | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        match line.split():
            case ["add", number, home]:
                added = await add(int(number), Home(Path(home)))
            case ["drop"] if added is not None:
                server, lease, holding = added
                lease.end()
                await holding
                await server.stop(0)
                say("dropped")
            case _:
                raise ValueError(line)
    for server in servers:
        await server.stop(0)


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    asyncio.run(main(Path(where), *map(int, numbers)))
