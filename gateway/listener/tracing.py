"""Traces of calls: client -> Envoy -> tool, told to a collector by OTLP over gRPC. Absent unless configured.

Envoy takes part in the trace that a caller's `traceparent` names (W3C Trace
Context), and begins one for a sample of the other calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any as Untyped

from gateway.listener.call_log import SHOWN_PATH
from gateway.listener.upstream import http2_cluster
from gateway.xds.messages import make, pack

COLLECTOR = "llmesh.traces"
SERVICE_NAME = "llmesh-envoy"
# What Envoy tells of every request and nobody may: where a caller is, and what it calls itself. The message of an
# error it tells after these (1.40), so that cannot be left out.
_NOT_TOLD = ("peer.address", "user_agent", "downstream_cluster")
# What Envoy tells of a path has the query.
_PATHS = ("http.url", "grpc.path")


@dataclass(frozen=True, slots=True)
class Traces:
    """The collector's address, and how many of a hundred calls are traced whose callers do not say."""

    host: str
    port: int
    sample_percent: float


def tracing(traces: Traces) -> dict[str, Untyped]:
    """The connection manager's part."""
    provider = make(
        "envoy.config.trace.v3.OpenTelemetryConfig",
        grpc_service={"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": {"seconds": 1}},
        service_name=SERVICE_NAME,
        sampler=_sampler("parent_based", "ParentBased", wrapped_sampler=_of_a_hundred(traces.sample_percent)),
    )
    tags = [
        {"tag": "llmesh.call_id", "request_header": {"name": "x-request-id"}},
        *({"tag": name, "value": SHOWN_PATH} for name in _PATHS),
        *({"tag": name, "literal": {"value": "-"}} for name in _NOT_TOLD),
    ]
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": pack(provider)},
        # The sampler decides: these two, of Envoy's own, would pass over what a caller's trace says.
        "random_sampling": {"value": 100},
        "client_sampling": {"value": 0},
        "custom_tags": tags,
    }


def _of_a_hundred(percent: float) -> dict[str, Untyped]:
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    return _sampler("trace_id_ratio_based", "TraceIdRatioBased", sampling_percentage=share)


def _sampler(name: str, message: str, **fields: Untyped) -> dict[str, Untyped]:
    config = make(f"envoy.extensions.tracers.opentelemetry.samplers.v3.{message}SamplerConfig", **fields)
    return {"name": f"envoy.tracers.opentelemetry.samplers.{name}", "typed_config": pack(config)}


def traces_cluster(traces: Traces) -> dict[str, Untyped]:
    """The collector."""
    return http2_cluster(COLLECTOR, {"socket_address": {"address": traces.host, "port_value": traces.port}})
