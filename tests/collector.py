"""A real OTLP receiver that keeps the spans it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(slots=True)
class Collector(service.TraceServiceServicer):
    """spans: each with the name of the service that told it."""

    address: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list[tuple[str, Span]])

    async def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:
        """Keep the spans."""
        for told in request.resource_spans:
            facts = {each.key: each.value.string_value for each in told.resource.attributes}
            self.spans += [(facts["service.name"], span) for scope in told.scope_spans for span in scope.spans]
        return pb.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncGenerator[Collector]:
    """A collector on a port of its own."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    collector = Collector(f"127.0.0.1:{port}")
    service.add_TraceServiceServicer_to_server(collector, server)  # pyright: ignore[reportUnknownMemberType] it has no types
    await server.start()
    yield collector
    await server.stop(0)


@contextmanager
def collecting_beside() -> Generator[Collector]:
    """The same in a thread of its own, for as long as several tests run."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="collector")
    thread.start()
    collectors = collecting()
    try:
        yield asyncio.run_coroutine_threadsafe(collectors.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(collectors.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
