"""The servicer of acme.testing.v1.Echo."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoServicer as Base
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]
from grpc_status import rpc_status

import llmesh

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Marks:
    """What became of marked calls: told to whoever follows, from the first event on."""

    def __init__(self) -> None:
        """Start with no call."""
        self._events: defaultdict[str, list[str]] = defaultdict(list)
        self._changed = asyncio.Event()

    def put(self, mark: str, event: str) -> None:
        """Write an event down."""
        self._events[mark].append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, mark: str) -> AsyncGenerator[str]:
        """Each event of the mark; never ends."""
        told = 0
        while True:
            changed = self._changed
            for event in self._events[mark][told:]:
                told += 1
                yield event
            await changed.wait()

    @contextmanager
    def watch(self, mark: str) -> Generator[None]:
        """Write down how the call in the block begins and ends."""
        if not mark:
            yield
            return
        self.put(mark, "began")
        end = "failed"
        try:
            yield
            end = "answered"
        except (asyncio.CancelledError, GeneratorExit):
            end = "cancelled"
            raise
        finally:
            self.put(mark, end)


class EchoServicer(Base):
    """Answers as ordered."""

    def __init__(self) -> None:
        """No call yet."""
        self._marks = Marks()

    async def Unary(self, request: pb.UnaryRequest, context: Context) -> pb.UnaryResponse:
        """Answer once."""
        remaining_s = llmesh.current_call().remaining_s
        await _begin(context, request.orders)
        with self._marks.watch(request.orders.mark):
            await _obey(request.orders, context)
        return pb.UnaryResponse(
            text=request.text,
            padding=bytes(request.orders.padding_bytes),
            remaining_ms=0 if remaining_s is None else round(remaining_s * 1000),
            items=request.items,
        )

    async def ServerStream(
        self, request: pb.ServerStreamRequest, context: Context
    ) -> AsyncIterator[pb.ServerStreamResponse]:
        """Answer several times."""
        await _begin(context, request.orders)
        sizes = [request.orders.padding_bytes] * request.count + list(request.padding_sizes)
        with self._marks.watch(request.orders.mark):
            for index, size in enumerate(sizes):
                await _wait(request.orders)
                yield pb.ServerStreamResponse(text=request.text, index=index, padding=bytes(size))
            await _fail(request.orders, context)

    async def ClientStream(
        self, request_iterator: AsyncIterator[pb.ClientStreamRequest], context: Context
    ) -> pb.ClientStreamResponse:
        """Join texts."""
        await _begin(context)
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
        await _begin(context)
        async for request in request_iterator:
            with self._marks.watch(request.orders.mark):
                await _obey(request.orders, context)
                yield pb.BidiResponse(text=request.text, padding=bytes(request.orders.padding_bytes))

    async def Follow(self, request: pb.FollowRequest, context: Context) -> AsyncIterator[pb.FollowResponse]:
        """Tell the events of a mark."""
        await context.send_initial_metadata(())
        async for event in self._marks.follow(request.mark):
            yield pb.FollowResponse(event=event)

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


async def _begin(context: Context, orders: pb.Orders | None = None) -> None:
    """Send back what the public description of gRPC's interoperability cases says, and answer by gzip if so ordered."""
    sent = tuple(context.invocation_metadata() or ())
    context.set_trailing_metadata(tuple(each for each in sent if each[0] == "x-grpc-test-echo-trailing-bin"))
    initial = tuple(each for each in sent if each[0] == "x-grpc-test-echo-initial")
    gzip = orders is not None and orders.gzip
    if gzip:
        context.set_compression(grpc.Compression.Gzip)
    # gRPC takes up the compression only where these are sent by name (grpcio 1.85).
    if initial or gzip:
        await context.send_initial_metadata(initial)


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
    if orders.status.details:
        details = [*orders.status.details]
        status = status_pb2.Status(code=orders.status.code, message=orders.status.message, details=details)
        # The stubs leave its argument untyped.
        await context.abort_with_status(rpc_status.to_status(status))  # pyright: ignore[reportUnknownMemberType]
    if orders.HasField("status"):
        await context.abort(_CODES[orders.status.code], orders.status.message)
