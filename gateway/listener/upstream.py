"""Upstreams that are known from the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Untyped

from gateway.xds.messages import make, pack


def http2_cluster(name: str, address: Mapping[str, Untyped]) -> dict[str, Untyped]:
    """One server that is spoken to by HTTP/2."""
    http2 = make(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": {}},
    )
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": {"seconds": 1},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(http2)},
    }
