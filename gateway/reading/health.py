"""What a server says of its own health, by grpc.health.v1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gateway.reading.calls import as_sent, read_next
from gateway.reading.refusal import Refusal

__all__ = ["Health", "health_checked", "watch_health"]

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
# A server that has health answers at once.
FIRST_ANSWER_S = 1.0
# How many of its services a server is asked about at once: each answer may be as large as a contract.
ASKED_AT_ONCE = 16
# What a server says next is not heard sooner: who keeps changing its mind costs the mesh no more than this.
PAUSE_S = 0.5
KNOWN = (HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING)


class Health:
    """An open watch on a server as a whole. serving: what it said last."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[HealthCheckRequest, bytes], *, serving: bool) -> None:
        """The call has answered once."""
        self._call = call
        self.serving = serving

    async def follow(self, tell: Callable[[bool], None]) -> None:
        """Pass each change on, PAUSE_S apart, until the server ends the watch or we are cancelled."""
        try:
            while True:
                self.serving = _status(await read_next(self._call)) == HealthCheckResponse.SERVING
                tell(self.serving)
                await asyncio.sleep(PAUSE_S)
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


async def health_checked(channel: grpc.aio.Channel, services: Iterable[str]) -> frozenset[str]:
    """Those of the services that the server has an opinion on, asked as Envoy asks: by their own names."""
    names, turns = list(services), asyncio.Semaphore(ASKED_AT_ONCE)

    async def knows(name: str) -> bool:
        async with turns:
            return await _knows(channel, name)

    checked = await asyncio.gather(*map(knows, names))
    return frozenset(name for name, knows in zip(names, checked, strict=True) if knows)


async def _knows(channel: grpc.aio.Channel, service: str) -> bool:
    # One answer is a stream of one; read_next knows the traps of a stranger's.
    check = channel.unary_stream(
        CHECK, request_serializer=HealthCheckRequest.SerializeToString, response_deserializer=as_sent
    )
    call = check(HealthCheckRequest(service=service))
    try:
        async with asyncio.timeout(FIRST_ANSWER_S):
            return _status(await read_next(call)) in KNOWN
    except (grpc.aio.AioRpcError, Refusal, TimeoutError):
        return False
    finally:
        call.cancel()


def _status(content: bytes) -> int:
    try:
        return HealthCheckResponse.FromString(content).status
    except DecodeError as err:
        raise Refusal("BAD_ANSWER", "the answer is no health response") from err
