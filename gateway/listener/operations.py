"""The operations port: figures and health in plain HTTP, without a token.

Envoy serves it, as readiness is Envoy's: while the gateway is away, calls are
answered, and this port says so. It is open once Envoy has been programmed.
Three pages, each one exact request; nothing else of the admin socket can be
reached through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.xds.messages import make, pack

GATEWAY, ADMIN = "llmesh.operations", "llmesh.admin"
METRICS, LIVE, READY = "/metrics", "/livez", "/readyz"
# Of the admin socket, and of the gateway's beside it (gateway/operations/server.py).
_ADMIN_METRICS, _ADMIN_READY = "/stats/prometheus?usedonly", "/ready"
_LOOK_EVERY = {"seconds": 1}
_CHUNKED = "x-llmesh-chunked"
# A few probes and scrapes, each keeping one.
CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Operations:
    """Where the port is, and the socket on which the gateway tells its own figures."""

    host: str
    port: int
    socket: str


def operations_listener(port: Operations) -> dict[str, Untyped]:
    """The listener of the port."""
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": pack(_manager())}
    return {
        "name": "operations",
        "address": {"socket_address": {"address": port.host, "port_value": port.port}},
        "filter_chains": [{"filters": [_connections(), manager]}],
        "per_connection_buffer_limit_bytes": {"value": 1 << 16},
        # That callers take all connections there may be is no reason to be thought unready.
        "ignore_global_conn_limit": True,
    }


def operations_clusters(port: Operations, *, admin_socket: str) -> list[dict[str, Untyped]]:
    """What the port's pages come from."""
    return [
        _cluster(ADMIN, [admin_socket]),
        # The gateway tells Envoy's figures along with its own. Where it is away, or stands still, Envoy alone does.
        {**_cluster(GATEWAY, [port.socket, admin_socket]), "health_checks": [_look()]},
    ]


def _connections() -> dict[str, Untyped]:
    limit = make(
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="operations",
        max_connections={"value": CONNECTIONS},
    )
    return {"name": "envoy.filters.network.connection_limit", "typed_config": pack(limit)}


def _manager() -> Message:
    routes = [
        _route(METRICS, route={"cluster": GATEWAY, "prefix_rewrite": _ADMIN_METRICS, "timeout": {"seconds": 5}}),
        _route(READY, route={"cluster": ADMIN, "prefix_rewrite": _ADMIN_READY, "timeout": {"seconds": 2}}),
        _route(LIVE, direct_response={"status": 200, "body": {"inline_string": "LIVE\n"}}),
    ]
    return make(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="operations",
        # Neither HTTP/2 nor an upgrade: what asks here are probes and scrapes.
        codec_type="HTTP1",
        use_remote_address={"value": True},
        skip_xff_append=True,
        generate_request_id={"value": False},
        early_header_mutation_extensions=[_mark_body()],
        max_request_headers_kb={"value": 8},
        request_headers_timeout={"seconds": 5},
        request_timeout={"seconds": 5},
        stream_idle_timeout={"seconds": 10},
        common_http_protocol_options={"idle_timeout": {"seconds": 60}},
        route_config={"virtual_hosts": [{"name": "operations", "domains": ["*"], "routes": routes}]},
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": pack(
                    make("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
                ),
            }
        ],
    )


def _mark_body() -> dict[str, Untyped]:
    # Envoy takes `transfer-encoding` away before it looks for a route.
    told = {"header": {"key": _CHUNKED, "value": "%REQ(TRANSFER-ENCODING)%"}}
    mutation = make(
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=[{"append": told}]
    )
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": pack(mutation)}


def _route(path: str, **does: Untyped) -> dict[str, Untyped]:
    """A route of one exact request: GET, this path without a query, and no body, which the admin socket would keep."""
    only = [
        {"name": ":method", "string_match": {"exact": "GET"}},
        {"name": ":path", "string_match": {"exact": path}},
        *({"name": name, "present_match": False} for name in ("content-length", _CHUNKED)),
    ]
    return {"match": {"path": path, "headers": only}, **does}


def _cluster(name: str, sockets: list[str]) -> dict[str, Untyped]:
    """A cluster of sockets, each asked where those before it are not healthy."""
    endpoints = [
        {"priority": at, "lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}
        for at, path in enumerate(sockets)
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": {"seconds": 1},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _look() -> dict[str, Untyped]:
    return {
        "timeout": {"seconds": 1},
        "interval": _LOOK_EVERY,
        "no_traffic_interval": _LOOK_EVERY,
        "unhealthy_threshold": {"value": 1},
        "healthy_threshold": {"value": 1},
        "http_health_check": {"path": _ADMIN_READY},
    }
