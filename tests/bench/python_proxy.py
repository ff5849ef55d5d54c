"""The yardstick: a proxy of unary calls in Python that enforces nothing. `python -m tests.bench.python_proxy PORT TO`.

grpc.aio on uvloop, one process. It passes a request on as the bytes that came,
with the caller's deadline and metadata, and the answer likewise.
"""

from __future__ import annotations

import sys

import grpc
import grpc.aio
import uvloop

from gateway.reading.calls import as_sent


class _Pass(grpc.GenericRpcHandler):
    """Every method is passed on."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = str(handler_call_details.method)
        if path not in self._handlers:
            self._handlers[path] = self._handler(path)
        return self._handlers[path]

    def _handler(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        call = self._channel.unary_unary(path, request_serializer=as_sent, response_deserializer=as_sent)

        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            metadata = context.invocation_metadata()
            try:
                return await call(request, timeout=context.time_remaining(), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType] - async is right here


async def serve(port: str, to: str) -> None:
    """Serve until killed."""
    async with grpc.aio.insecure_channel(to) as channel:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Pass(channel),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
