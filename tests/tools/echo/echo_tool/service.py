"""The servicer of acme.testing.v1.Echo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoServicer as Base

import llmesh

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class EchoServicer(Base):
    """Answers as ordered."""

    async def Unary(self, request: pb.UnaryRequest, context: Context) -> pb.UnaryResponse:
        """Answer once."""
        remaining_s = llmesh.current_call().remaining_s
        await _obey(request.orders, context)
        return pb.UnaryResponse(
            text=request.text,
            padding=bytes(request.orders.padding_bytes),
            remaining_ms=0 if remaining_s is None else round(remaining_s * 1000),
        )

    async def ServerStream(
        self, request: pb.ServerStreamRequest, context: Context
    ) -> AsyncIterator[pb.ServerStreamResponse]:
        """Answer several times."""
        for index in range(request.count):
            await _wait(request.orders)
            padding = bytes(request.orders.padding_bytes)
            yield pb.ServerStreamResponse(text=request.text, index=index, padding=padding)
        await _fail(request.orders, context)

    async def ClientStream(
        self, request_iterator: AsyncIterator[pb.ClientStreamRequest], context: Context
    ) -> pb.ClientStreamResponse:
        """Join texts."""
        texts: list[str] = []
        padding_bytes = 0
        async for request in request_iterator:
            await _obey(request.orders, context)
            texts.append(request.text)
            padding_bytes += len(request.padding)
        return pb.ClientStreamResponse(text=" ".join(texts), count=len(texts), padding_bytes=padding_bytes)

    async def Bidi(
        self, request_iterator: AsyncIterator[pb.BidiRequest], context: Context
    ) -> AsyncIterator[pb.BidiResponse]:
        """Answer each text."""
        async for request in request_iterator:
            await _obey(request.orders, context)
            yield pb.BidiResponse(text=request.text, padding=bytes(request.orders.padding_bytes))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Say who calls."""
        call = llmesh.current_call()
        return pb.WhoAmIResponse(
            issuer=call.caller.issuer,
            subject=call.caller.subject,
            roles=call.caller.roles,
            domain=call.caller.domain,
            clearances=call.caller.clearances,
            actor=call.caller.actor,
            call_id=call.call_id,
            metadata_keys=sorted({key for key, _ in context.invocation_metadata() or ()}),
        )

    async def Erase(self, request: pb.EraseRequest, context: Context) -> pb.EraseResponse:
        """Destroy nothing."""
        return pb.EraseResponse()

    async def Missing(self, request: pb.MissingRequest, context: Context) -> pb.MissingResponse:
        """Say that it isn't there."""
        raise llmesh.Unimplemented("this method is missing on purpose")


async def _obey(orders: pb.Orders, context: Context) -> None:
    await _wait(orders)
    await _fail(orders, context)


async def _wait(orders: pb.Orders) -> None:
    if orders.HasField("delay"):
        await asyncio.sleep(orders.delay.ToMicroseconds() / 1_000_000)


async def _fail(orders: pb.Orders, context: Context) -> None:
    for key, value in orders.cite.items():
        llmesh.current_call().cite(**{key: value})
    if orders.crash:
        raise ValueError(orders.crash)
    if orders.HasField("status"):
        await context.abort(_CODES[orders.status.code], orders.status.message)
