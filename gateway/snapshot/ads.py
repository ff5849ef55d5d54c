"""Where Envoy finds what the gateway tells it."""

from __future__ import annotations

from typing import Any as Untyped

# Where Envoy reaches the gateway.
XDS_CLUSTER = "llmesh.xds"
# A ConfigSource: the one stream to the gateway.
ADS: dict[str, Untyped] = {"ads": {}, "resource_api_version": "V3"}
