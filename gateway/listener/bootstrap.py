"""Envoy's static configuration: all that it knows before the gateway has spoken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.listener.listener import branches_listener, listener
from gateway.listener.operations import Operations, operations_clusters, operations_listener
from gateway.listener.overload import overload_manager
from gateway.listener.stats import stats_config
from gateway.listener.tracing import Traces, traces_cluster
from gateway.listener.upstream import http2_cluster
from gateway.snapshot.ads import ADS, XDS_CLUSTER
from gateway.xds.messages import make
from llmesh.mesh_file import LimitSettings

# How soon Envoy looks for a gateway that was away; by default it would wait up to 30 s.
_RECONNECT: Mapping[str, Untyped] = {
    "retry_back_off": {"base_interval": {"nanos": 100_000_000}, "max_interval": {"seconds": 1}}
}


@dataclass(frozen=True, slots=True)
class Edge:
    """Where Envoy listens and writes.

    host, port: the mesh port; tls: whether it speaks TLS. branches_socket: where the gateway makes the branches of
    fan-outs; nowhere if empty. Paths are absolute.
    """

    host: str
    port: int
    admin_socket: str
    xds_socket: str
    call_log: str
    branches_socket: str = ""
    tls: bool = False
    operations: Operations | None = None
    traces: Traces | None = None
    limits: LimitSettings = field(default_factory=LimitSettings)


def bootstrap(edge: Edge) -> Message:
    """Envoy's whole static configuration."""
    return make(
        "envoy.config.bootstrap.v3.Bootstrap",
        node={"id": "llmesh", "cluster": "llmesh"},
        admin={
            "address": {"pipe": {"path": edge.admin_socket, "mode": 0o600}},
            # Whoever mends an overloaded Envoy must get in.
            "ignore_global_conn_limit": True,
        },
        dynamic_resources={
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": _RECONNECT}}],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ADS,
        },
        static_resources={
            "listeners": _listeners(edge),
            "clusters": _clusters(edge),
        },
        stats_config=stats_config(),
        # What a tool costs each worker, and its figures, are made when it is first called.
        cluster_manager={"enable_deferred_cluster_creation": True},
        deferred_stat_options={"enable_deferred_creation_stats": True},
        overload_manager=overload_manager(edge.limits),
        layered_runtime={"layers": [{"name": "static", "static_layer": {}}]},
    )


def _listeners(edge: Edge) -> list[dict[str, Untyped]]:
    mesh = listener(edge.host, edge.port, call_log=edge.call_log, tls=edge.tls, traces=edge.traces, limits=edge.limits)
    found = [mesh, *([operations_listener(edge.operations)] if edge.operations else [])]
    if edge.branches_socket:
        found.append(
            branches_listener(edge.branches_socket, call_log=edge.call_log, limits=edge.limits, traces=edge.traces)
        )
    return found


def _clusters(edge: Edge) -> list[dict[str, Untyped]]:
    found = [_xds_cluster(edge)]
    if edge.operations:
        found += operations_clusters(edge.operations, admin_socket=edge.admin_socket)
    if edge.traces:
        found.append(traces_cluster(edge.traces))
    return found


def _xds_cluster(edge: Edge) -> dict[str, Untyped]:
    return http2_cluster(XDS_CLUSTER, {"pipe": {"path": edge.xds_socket}})
