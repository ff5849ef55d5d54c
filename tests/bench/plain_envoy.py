"""The other side of the comparison: Envoy that only passes calls on, with the HTTP/2 options of the mesh."""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf import json_format

from gateway.listener.listener import http2_options
from gateway.snapshot.service import http2
from gateway.xds.messages import make, pack, pool

_BUFFER_BYTES = 1 << 20


def plain_envoy(port: int, backend: str) -> str:
    """Its configuration. backend: the path of a Unix socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": backend}}}}
    cluster: dict[str, Untyped] = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(http2())},
    }
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": pack(_manager())}
    listener: dict[str, Untyped] = {
        "name": "plain",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [manager]}],
        "per_connection_buffer_limit_bytes": {"value": _BUFFER_BYTES},
    }
    resources: dict[str, Untyped] = {"listeners": [listener], "clusters": [cluster]}
    message = make("envoy.config.bootstrap.v3.Bootstrap", static_resources=resources)
    return json_format.MessageToJson(message, descriptor_pool=pool(), preserving_proto_field_name=True)


def _manager() -> Untyped:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": {"seconds": 0}}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    return make(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="plain",
        codec_type="HTTP2",
        stream_idle_timeout={"seconds": 0},
        http2_protocol_options=http2_options(),
        route_config={"virtual_hosts": hosts},
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": pack(make("envoy.extensions.filters.http.router.v3.Router")),
            }
        ],
    )
