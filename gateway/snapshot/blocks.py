"""What is stopped at once, whoever calls: the filter `llmesh.blocks`."""

from __future__ import annotations

from google.protobuf.message import Message

from gateway.xds.messages import make, pack

BLOCKS = "llmesh.blocks"


def blocks() -> Message:
    """Nothing is blocked. An empty tree, never no filter: without one, all calls are refused."""
    allow = make("envoy.config.rbac.v3.Action", name="not blocked", action="ALLOW")
    return make(
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        matcher={"on_no_match": {"action": {"name": "allow", "typed_config": pack(allow)}}},
        rules_stat_prefix="blocks_",
    )
