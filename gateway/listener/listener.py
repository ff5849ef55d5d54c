"""The listener every call comes through, static from Envoy's start.

Only three filters change while it runs, each delivered on its own: who may
vouch (`llmesh.verify`), what that grants (`llmesh.caller`), and what is
blocked (`llmesh.blocks`). The order of the filters is the order of the page
"The data path": edge, who, may, where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.listener import edge
from gateway.listener.call_log import call_log as json_call_log
from gateway.listener.call_log import start_log
from gateway.listener.floods import refuse_floods
from gateway.listener.quotas import limit_calls, limit_classes
from gateway.listener.replies import local_replies
from gateway.listener.sizes import hold_to_sizes
from gateway.listener.tracing import Traces, tracing
from gateway.snapshot.access import deny_all
from gateway.snapshot.ads import ADS, XDS_CLUSTER
from gateway.snapshot.blocks import BLOCKS, STOPPED, refuse_blocked
from gateway.snapshot.caller import CALLER, VERIFY
from gateway.snapshot.delegate import DELEGATE, delegate
from gateway.snapshot.sizes import MAX_HELD_BYTES
from gateway.snapshot.tls import of_callers
from gateway.xds.messages import make, pack, type_url
from llmesh.mesh_file import LimitSettings

_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_LUA = "envoy.extensions.filters.http.lua.v3.Lua"
_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"

# Of a connection: a quarter of what a tool takes at once, lest one caller take it all.
MAX_STREAMS = 256
# Of a connection of the gateway's, by which one caller's branches come.
MAX_BRANCHES = 1 << 16
# What Envoy may hold of a caller's requests, of all calls on a connection.
CONNECTION_BYTES = 16 << 20
MAX_HEADERS_KB = 60
MAX_HEADERS = 100
# What Envoy holds of a call each way: a message, and what frames it.
HELD_BYTES = MAX_HELD_BYTES + 1024
# The same of a caller's branches: twice what those to one tool come to (128), as Envoy says only of a half that it may
# be sent again. So a tool that reads nothing keeps no branch to another from being sent. A smaller window for each
# branch would do it too, but Envoy holds no message back that is larger than that.
BRANCHES_BYTES = 2 * 128 * HELD_BYTES
# How long a connection stays that has no call, or never had one.
IDLE_S = 300
KEEPALIVE_S = 60
HEADERS_S = 10
HANDSHAKE_S = 10


@dataclass(frozen=True, slots=True)
class _Way:
    """A way in. name: in Envoy's figures. gateways: whether it is the gateway's own.

    streams: of one connection. window_bytes: of their requests together, what may wait for tools to read it.
    """

    name: str
    streams: int
    window_bytes: int
    gateways: bool


_MESH = _Way("llmesh", MAX_STREAMS, CONNECTION_BYTES, gateways=False)
_BRANCHES = _Way("branches", MAX_BRANCHES, BRANCHES_BYTES, gateways=True)


def listener(
    host: str, port: int, *, call_log: str, limits: LimitSettings, tls: bool = False, traces: Traces | None = None
) -> dict[str, Untyped]:
    """The one listener of the mesh. call_log: the path of the call log. tls: whether it speaks TLS alone."""
    return {
        "name": "llmesh",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [{"filters": [_manager(_MESH, call_log, traces, limits)], **(_secured() if tls else {})}],
        "per_connection_buffer_limit_bytes": {"value": HELD_BYTES},
    }


def branches_listener(
    socket: str, *, call_log: str, limits: LimitSettings, traces: Traces | None = None
) -> dict[str, Untyped]:
    """The gateway's own way in, for the branches of fan-outs: a Unix socket, and all else as at the mesh port.

    It believes where a call is said to come from, as rules may ask for it.
    """
    return {
        "name": "branches",
        "address": {"pipe": {"path": socket, "mode": 0o600}},
        "filter_chains": [{"filters": [_manager(_BRANCHES, call_log, traces, limits)]}],
        "per_connection_buffer_limit_bytes": {"value": HELD_BYTES},
    }


def _secured() -> dict[str, Untyped]:
    # Whoever connects and shakes no hands is let go.
    return {"transport_socket": of_callers(), "transport_socket_connect_timeout": {"seconds": HANDSHAKE_S}}


def _manager(way: _Way, call_log: str, traces: Traces | None, limits: LimitSettings) -> dict[str, Untyped]:
    manager = make(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=way.name,
        codec_type="HTTP2",
        use_remote_address={"value": not way.gateways},
        skip_xff_append=True,
        stream_idle_timeout={"seconds": 0},
        request_headers_timeout={"seconds": HEADERS_S},
        max_request_headers_kb={"value": MAX_HEADERS_KB},
        common_http_protocol_options={"idle_timeout": {"seconds": IDLE_S}, "max_headers_count": {"value": MAX_HEADERS}},
        http2_protocol_options=http2_options(way.streams, way.window_bytes),
        early_header_mutation_extensions=[edge.strip(gateway=way.gateways)],
        generate_request_id={"value": True},
        # A tool's own, or none: that there is an Envoy is nobody's business.
        server_header_transformation="PASS_THROUGH",
        scoped_routes={
            "name": "tools",
            "scope_key_builder": {
                "fragments": [{"header_value_extractor": {"name": ":path", "element_separator": "/", "index": 1}}]
            },
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
        http_filters=_filters(limits, start_log(call_log, traced=traces is not None)),
        local_reply_config={"mappers": local_replies(limits)},
        access_log=[json_call_log(call_log, traced=traces is not None)],
        tracing=tracing(traces) if traces else None,
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": pack(manager)}


def http2_options(streams: int = MAX_STREAMS, window_bytes: int = CONNECTION_BYTES) -> dict[str, Untyped]:
    """What a caller's connection may do, as the fields of Envoy's Http2ProtocolOptions."""
    return {
        "max_concurrent_streams": {"value": streams},
        # What a caller cannot read of one tool's answer must not stay in the table that later answers of all tools
        # refer to: gRPC's C core keeps the error with the entry.
        "hpack_table_size": {"value": 0},
        # What one caller may have Envoy hold of its calls.
        "initial_stream_window_size": {"value": HELD_BYTES},
        "initial_connection_window_size": {"value": window_bytes},
        # Frames that cost their sender nothing: beyond these, the connection is cut.
        "max_outbound_frames": {"value": 10_000},
        "max_outbound_control_frames": {"value": 1_000},
        "max_consecutive_inbound_frames_with_empty_payload": {"value": 1},
        "max_inbound_priority_frames_per_stream": {"value": 100},
        "max_inbound_window_update_frames_per_data_frame_sent": {"value": 10},
        # A malformed call is its own end, and not that of the calls beside it (RFC 9113, 8.1.1).
        "override_stream_error_on_invalid_http_message": {"value": True},
        # A peer that is gone keeps nothing open.
        "connection_keepalive": {"interval": {"seconds": KEEPALIVE_S}, "timeout": {"seconds": KEEPALIVE_S}},
    }


def _filters(limits: LimitSettings, starts: dict[str, Untyped]) -> list[dict[str, Untyped]]:
    return [
        {"name": "llmesh.edge", "typed_config": pack(edge.refuse_no_calls())},
        {"name": "llmesh.clean_rest", "typed_config": pack(edge.clean_rest())},
        *_floods(limits.refused_tokens_per_s),
        _discovered(VERIFY, _JWT),
        _discovered(CALLER, _LUA),
        _discovered(BLOCKS, _RBAC),
        {"name": STOPPED, "typed_config": pack(refuse_blocked())},
        *limit_calls(limits),
        {"name": "llmesh.rules", "typed_config": pack(deny_all())},
        *limit_classes(limits),
        hold_to_sizes(),
        {"name": DELEGATE, "typed_config": pack(delegate(XDS_CLUSTER)), "disabled": True},
        {"name": "envoy.filters.http.router", "typed_config": pack(_router(starts))},
    ]


def _router(starts: dict[str, Untyped]) -> Message:
    return make(
        "envoy.extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
        upstream_log=[starts],
        upstream_log_options={"flush_upstream_log_on_upstream_stream": True},
    )


def _floods(refused_tokens_per_s: int) -> list[dict[str, Untyped]]:
    if not refused_tokens_per_s:
        return []
    return [{"name": "llmesh.floods", "typed_config": pack(refuse_floods(refused_tokens_per_s))}]


def _discovered(name: str, message: str) -> dict[str, Untyped]:
    # No default and no time limit: the port opens when the gateway has said
    # who may come in, never before.
    source = {**ADS, "initial_fetch_timeout": {"seconds": 0}}
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [type_url(message)]}}
