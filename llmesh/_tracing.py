"""How a program joins the traces of its calls: thinly, and only where OpenTelemetry is there and configured.

Configured means: by the program itself, which has set a tracer provider, or by
OpenTelemetry's own variables, which `llmesh up` sets for its tools where the
mesh file says `traces`. Where it is not, nothing is imported and calls cost
nothing. Spans tell of a call its method, its id and its outcome; nothing of
the caller, and nothing of what is in it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Coroutine, Iterable, Sequence
from contextvars import Token
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import grpc

from llmesh.call import Call

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    Metadatum = tuple[str, str | bytes]

log = logging.getLogger("llmesh.tracing")

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PARENT = "traceparent"
_CARRIED = (PARENT, "tracestate")
# A collector that is away must not hold up the end of a program.
_EXPORT_TIMEOUT_S = 2


@cache
def configure() -> None:
    """Send spans where OpenTelemetry's variables say, once, unless the program has seen to it or nothing is said."""
    if not any(os.environ.get(name) for name in VARIABLES):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as err:
        log.warning("traces not joined: install ll-mesh[otel]", extra={"missing": err.name})
        return
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_TIMEOUT_S)))
    trace.set_tracer_provider(provider)


def _on() -> bool:
    return "opentelemetry.trace" in sys.modules


@dataclass(frozen=True, slots=True)
class ServerSpan:
    """The span of a call that this process answers, and how to leave it."""

    span: Span
    token: Token[Context]

    def end(self, outcome: str) -> None:
        """The call was answered. outcome: the name of its code."""
        from opentelemetry import context

        context.detach(self.token)
        _end(self.span, outcome)


def answering(call: Call, metadata: Iterable[Metadatum]) -> ServerSpan | None:
    """Begin the span of a call, as a part of the trace that its metadata names; None where traces are off."""
    if not _on():
        return None
    from opentelemetry import context, trace

    parent = _propagator().extract({key: value for key, value in metadata if key in _CARRIED})
    span = trace.get_tracer("llmesh").start_span(
        call.method.removeprefix("/"),
        context=parent,
        kind=trace.SpanKind.SERVER,
        attributes={**_method(call.method), "llmesh.call_id": call.call_id},
    )
    return ServerSpan(span, context.attach(trace.set_span_in_context(span, parent)))


class ClientSpan:
    """The span of a call that this process makes."""

    def __init__(self, path: str) -> None:
        """Begin it, as a part of what is being done here."""
        from opentelemetry import trace

        self._span = trace.get_tracer("llmesh").start_span(
            path.removeprefix("/"), kind=trace.SpanKind.CLIENT, attributes=_method(path)
        )

    def metadata(self) -> Sequence[Metadatum]:
        """What tells the other side which trace it is in."""
        from opentelemetry import trace

        carried: dict[str, str] = {}
        _propagator().inject(carried, trace.set_span_in_context(self._span))
        return tuple(carried.items())

    def end(self, call: Any) -> None:
        """The call is over."""
        _end(self._span, _code_of(call))


def calling(path: str, metadata: Iterable[Metadatum]) -> ClientSpan | None:
    """Begin the span of a call to be made; None where traces are off, or the metadata names a trace already."""
    return ClientSpan(path) if _on() and all(key != PARENT for key, _ in metadata) else None


def _code_of(call: Any) -> str:
    """The name of the code that a call ended with."""
    # gRPC tells it to those who wait for it; of a call that is over it does so at once.
    asked = cast("Coroutine[None, None, grpc.StatusCode]", call.code())
    try:
        asked.send(None)
    except StopIteration as told:
        return cast("grpc.StatusCode", told.value).name
    asked.close()
    return grpc.StatusCode.UNKNOWN.name


def _end(span: Span, outcome: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("rpc.response.status_code", outcome)
    if outcome != grpc.StatusCode.OK.name:
        span.set_status(StatusCode.ERROR, outcome)
    span.end()


def _method(path: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": path.removeprefix("/")}


@cache
def _propagator() -> Any:
    # This one alone: what others carry, baggage above all, is not for every tool to see.
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
