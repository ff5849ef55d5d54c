"""What a server says of its own health, by grpc.health.v1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gateway.discovery.calls import as_sent, read_next
from gateway.discovery.refusal import Refusal

__all__ = ["Health", "watch_health"]

WATCH = "/grpc.health.v1.Health/Watch"
# A server that has health answers at once.
FIRST_ANSWER_S = 1.0
KNOWN = (HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING)


class Health:
    """An open watch on a server as a whole. serving: what it said last."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[HealthCheckRequest, bytes], *, serving: bool) -> None:
        """The call has answered once."""
        self._call = call
        self.serving = serving

    async def follow(self, tell: Callable[[bool], None]) -> None:
        """Pass each change on, until the server ends the watch or we are cancelled."""
        try:
            while True:
                self.serving = _status(await read_next(self._call)) == HealthCheckResponse.SERVING
                tell(self.serving)
        except (grpc.aio.AioRpcError, Refusal):
            # The connection says whether the server is still there.
            return


async def watch_health(channel: grpc.aio.Channel) -> Health | None:
    """A watch on the server's health; None if it has no opinion on itself as a whole."""
    open_watch = channel.unary_stream(
        WATCH, request_serializer=HealthCheckRequest.SerializeToString, response_deserializer=as_sent
    )
    call = open_watch(HealthCheckRequest())
    try:
        async with asyncio.timeout(FIRST_ANSWER_S):
            status = _status(await read_next(call))
    except (grpc.aio.AioRpcError, Refusal, TimeoutError):
        status = HealthCheckResponse.UNKNOWN
    if status in KNOWN:
        return Health(call, serving=status == HealthCheckResponse.SERVING)
    call.cancel()
    return None


def _status(content: bytes) -> int:
    try:
        return HealthCheckResponse.FromString(content).status
    except DecodeError as err:
        raise Refusal("BAD_ANSWER", "the answer is no health response") from err
