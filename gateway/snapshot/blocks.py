"""What is stopped at once, whoever calls: the filter `llmesh.blocks`."""

from __future__ import annotations

from google.protobuf.message import Message

from gateway.xds.messages import make

BLOCKS = "llmesh.blocks"


def blocks() -> Message:
    """Nothing is blocked. A filter that asks nothing, never no filter: without one, all calls are refused."""
    return make("envoy.extensions.filters.http.rbac.v3.RBAC", rules_stat_prefix="blocks_")
