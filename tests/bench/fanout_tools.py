"""The tools of the fan-out benchmark: `python -m tests.bench.fanout_tools SOCKET COUNT`.

COUNT services in one process, all with the same methods, by their last part:
Ask answers at once, Slow after 20 ms, Faulty never in the first eight services
and with UNAVAILABLE in the next eight, Few is there in the first eight alone,
Stream gives 100 MB, Write keeps what it was sent, and Twice tells how many
writes came more than once.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any as Untyped

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server  # pyright: ignore[reportUnknownVariableType]
from grpc_reflection.v1alpha.reflection_pb2_grpc import (
    add_ServerReflectionServicer_to_server,  # pyright: ignore[reportUnknownVariableType]
)

from llmesh._health import HealthServicer
from llmesh.api.options.v1 import options_pb2
from llmesh.readiness import Readiness
from llmesh.reflection import reflect

PACKAGE = "acme.testing.v1"
FAULTY = 8
SLOW_S = 0.02
CHUNK_BYTES, CHUNKS = 1 << 18, 400
# One text field of 244 bytes.
ANSWER = b"\n\xf4\x01" + b"a" * 244
METHODS = ("Ask", "Slow", "Faulty", "Few", "Stream", "Write")


def services(count: int) -> list[str]:
    """Full names of so many services."""
    return [f"{PACKAGE}.Fan{number:03}" for number in range(count)]


def contract(count: int) -> FileDescriptorProto:
    """The file of so many services."""
    made: list[str] = []
    for number, service in enumerate(services(count)):
        methods = [name for name in METHODS if name != "Few" or number < FAULTY]
        made.append(f"""
          service {{ name: "{service.rpartition(".")[2]}" {" ".join(map(_method, methods))}
            options {{ [llmesh.api.options.v1.tool] {{ domain: "testing" owner_team: "bench" }} }} }}""")
    text = f"""
      name: "acme/testing/v1/fan.proto" package: "{PACKAGE}" syntax: "proto3"
      dependency: "llmesh/api/options/v1/options.proto"
      {" ".join(_message(f"{name}Request") for name in METHODS)} {_message("FanResponse")} {" ".join(made)}
    """
    assert options_pb2.DESCRIPTOR.name
    return text_format.Parse(text, FileDescriptorProto())


def _message(name: str) -> str:
    field = 'field { name: "text" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }'
    return f'message_type {{ name: "{name}" {field} }}'


def _method(name: str) -> str:
    effect = "EFFECT_WRITE" if name == "Write" else "EFFECT_READ"
    return f"""method {{ name: "{name}" input_type: ".{PACKAGE}.{name}Request" output_type: ".{PACKAGE}.FanResponse"
      server_streaming: {str(name == "Stream").lower()}
      options {{ [llmesh.api.options.v1.method] {{ effect: {effect} cost: COST_LOW max_concurrency: 4096 }} }} }}"""


class Tools(grpc.GenericRpcHandler):
    """Answers every method."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._written: Counter[tuple[str, bytes]] = Counter()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path."""
        path = str(handler_call_details.method)
        service, _, name = path.rpartition("/")
        if path == "/bench/Twice":
            return grpc.unary_unary_rpc_method_handler(self._twice)  # pyright: ignore[reportArgumentType]
        if not service.startswith(f"/{PACKAGE}.Fan"):
            return None
        if name == "Stream":
            return grpc.unary_stream_rpc_method_handler(_stream)  # pyright: ignore[reportArgumentType]

        async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if name == "Slow":
                await asyncio.sleep(SLOW_S)
            if name == "Write":
                self._written[path, data] += 1
            if name == "Faulty":
                await _fail(int(service[-3:]), context)
            return ANSWER

        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType]

    async def _twice(self, _: bytes, _context: object) -> bytes:
        return str(sum(count > 1 for count in self._written.values())).encode()


async def _fail(number: int, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    if number < FAULTY:
        await asyncio.Event().wait()
    if number < 2 * FAULTY:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "dead")


async def _stream(_: bytes, _context: object) -> AsyncIterator[bytes]:
    size = CHUNK_BYTES
    # Of a field of text: its length as a varint of three bytes.
    head = b"\n" + bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))
    chunk = head + b"a" * size
    for _count in range(CHUNKS):
        yield chunk


async def main(socket: str, count: int) -> None:
    """Serve until ended."""
    descriptor_pool.Default().AddSerializedFile(contract(count).SerializeToString())
    server = grpc.aio.server(options=(("grpc.max_concurrent_streams", 10_000),))
    server.add_generic_rpc_handlers((Tools(),))
    untyped: Untyped = server
    add_ServerReflectionServicer_to_server(reflect(services(count)), untyped)
    add_HealthServicer_to_server(HealthServicer(services(count), Readiness()), untyped)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
