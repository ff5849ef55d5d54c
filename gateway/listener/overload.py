"""What Envoy does when there is too much of it all."""

from __future__ import annotations

from typing import Any as Untyped

from gateway.xds.messages import make, pack
from llmesh.mesh_file import LimitSettings

_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"


def overload_manager(limits: LimitSettings) -> dict[str, Untyped]:
    """Beyond so many connections, further ones are closed as they come."""
    monitor = make(
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=limits.connections,
    )
    return {"resource_monitors": [{"name": _CONNECTIONS, "typed_config": pack(monitor)}]}
