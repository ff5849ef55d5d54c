"""Which of Envoy's own figures are kept: few, each named here, none by caller, path or process.

Envoy has some eighty figures for each cluster, which is each tool. A fixed list
bounds what a scrape of a large mesh returns, and Envoy's memory with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from gateway.snapshot.quotas import CLASSES
from gateway.xds.messages import make

# Kept for each tool, as cluster.<service>.<name>, so that each one more costs a series per tool.
TOOL: Mapping[str, str] = {
    "upstream_rq_total": "Calls sent to the tool, those sent again included.",
    "upstream_rq_active": "Calls that the tool is answering.",
    "upstream_rq_timeout": "Calls ended because the contract's deadline had passed.",
    "upstream_rq_rx_reset": "Calls that the tool broke off.",
    "upstream_rq_retry": "Calls sent again because no connection could be made.",
    "upstream_rq_pending_overflow": "Calls refused because the tool answers as many as its contract allows.",
    "upstream_cx_active": "Connections to the tool.",
    "upstream_cx_total": "Connections made to the tool.",
    "upstream_cx_connect_fail": "Connections to the tool that could not be made.",
    "membership_total": "Endpoints that serve the tool.",
    "membership_healthy": "Of these, the endpoints that take calls.",
}
# Kept for each tool that was ever called: how long it took. Envoy keeps the same again by where callers are, below
# `internal` and `external`, eight small letters as no service's name has by our style.
TOOL_TIME = "upstream_rq_time"
ABOUT_TIME = "Milliseconds from the end of a call's request to the end of the tool's answer."
TIME_BUCKETS_MS = (5, 25, 100, 500, 2500, 10_000, 30_000)
_TOOL_NAME = r"(.*\.)?([^.]*[A-Z@][^.]*|[^.]{1,7}|[^.]{9,})\."
# Of a tool, with those that Prometheus adds to the buckets: the one without end, the sum and the count.
SERIES_A_TOOL = len(TOOL) + len(TIME_BUCKETS_MS) + 3
# Of the mesh port as a whole: http.llmesh.<name>.
PORT: Mapping[str, str] = {
    "downstream_cx_active": "Connections of clients.",
    "downstream_cx_total": "Connections that clients made.",
    "downstream_cx_protocol_error": "Connections ended because the client broke HTTP/2.",
    "downstream_rq_active": "Calls that are being answered.",
    "downstream_rq_total": "Calls that came in, refused ones included.",
    "downstream_rq_time": "Milliseconds from a call's first byte to its answer's last.",
    "downstream_rq_rx_reset": "Calls that the client broke off.",
    "downstream_rq_tx_reset": "Calls that Envoy broke off.",
    "downstream_rq_too_many_premature_resets": "Connections ended for calls started to be broken off.",
    "downstream_rq_header_timeout": "Calls whose headers did not arrive in time.",
    "jwt_authn.allowed": "Calls with a token that an issuer vouches for.",
    "jwt_authn.denied": "Calls without such a token.",
    "rbac.edge_.denied": "Requests that are no gRPC calls, or state a malformed deadline.",
    "rbac.blocks_.denied": "Calls to what is blocked, or of those who are.",
    "rbac.allowed": "Calls that passed a step of the rules.",
    "rbac.denied": "Calls that a rule refused.",
    "lua.errors": "Callers that could not be derived from their tokens.",
    "scoped_rds.tools.all_scopes": "Services that calls are routed to.",
    "scoped_rds.tools.update_success": "Changes of what is routed that Envoy took.",
    "scoped_rds.tools.update_rejected": "Changes of what is routed that Envoy refused.",
}
# Of each port: listener.<address>.<name>.
LISTENER: Mapping[str, str] = {
    "downstream_global_cx_overflow": "Connections refused because there were as many as there may be.",
    "ssl.handshake": "TLS handshakes that ended well.",
    "ssl.connection_error": "TLS handshakes that did not.",
}
SERVER: Mapping[str, str] = {
    "server.live": "1 while Envoy takes calls and is not being ended.",
    "server.state": "0: it takes calls; 1: it is being ended; 2 and 3: it waits to be programmed.",
    "server.uptime": "Seconds since Envoy's start.",
    "server.memory_allocated": "Bytes that Envoy uses.",
    "server.memory_physical_size": "Bytes of memory that Envoy takes from the machine.",
    "server.days_until_first_cert_expiring": "Days until the first of Envoy's certificates ends.",
    "main_thread.watchdog_miss": "Times that Envoy's main thread did not answer in time.",
    "workers.watchdog_miss": "Times that a thread of Envoy's that takes calls did not answer in time.",
    "control_plane.connected_state": "1 while Envoy is connected to the gateway.",
    "cluster_manager.active_clusters": "Clusters: the tools and Envoy's own few.",
    "cluster_manager.warming_clusters": "Clusters that wait for their endpoints.",
    "cluster_manager.cds.update_success": "Changes of clusters that Envoy took.",
    "cluster_manager.cds.update_rejected": "Changes of clusters that Envoy refused.",
    **{
        f"quota.{name}.http_local_rate_limit.rate_limited": f"Calls refused because their caller has used up {quota}."
        for name, quota in {
            "calls": "the calls of a second",
            **{cost: f"the calls of a second to methods of cost {cost}" for cost in CLASSES.values()},
        }.items()
    },
    "overload.envoy.resource_monitors.global_downstream_max_connections.pressure": (
        "Connections, in percent of as many as there may be."
    ),
    "filesystem.write_failed": "Writes to the call log that failed.",
    "filesystem.write_total_buffered": "Bytes of the call log that wait to be written.",
    "filesystem.reopen_failed": "Failures to open the call log after it was put aside.",
}
# Envoy's own names of labels, which dashboards made for Envoy know; the ways it finds their values, but for
# the first: a service's name holds dots, of which Envoy's own takes what is before the first.
_CLUSTER_TAG = {"tag_name": "envoy.cluster_name", "regex": r"^cluster\.((.+)\.)[a-z_]+$"}
_TAGS = (
    "envoy.listener_address",
    "envoy.http_conn_manager_prefix",
    "envoy.rbac_http_prefix",
    "envoy.scoped_rds_config",
)


def stats_config() -> Message:
    """What Envoy is told about its figures."""
    kept = (
        _pattern(r"cluster\..+\.", TOOL),
        _pattern(rf"cluster\.{_TOOL_NAME}", [TOOL_TIME]),
        _pattern(r"http\.llmesh\.", PORT),
        # Addresses begin so; the admin socket's listener does not.
        _pattern(r"listener\.[0-9\[].*\.", LISTENER),
        _pattern("", SERVER),
    )
    # One pattern: Envoy asks each of several in turn, for each of the figures that it could have of a tool.
    pattern = {"safe_regex": {"regex": "|".join(kept)}}
    return make(
        "envoy.config.metrics.v3.StatsConfig",
        use_all_default_tags={"value": False},
        stats_tags=[_CLUSTER_TAG, *({"tag_name": name} for name in _TAGS)],
        stats_matcher={"inclusion_list": {"patterns": [pattern]}},
        histogram_bucket_settings=[{"match": {"suffix": TOOL_TIME}, "buckets": TIME_BUCKETS_MS}],
    )


def _pattern(prefix: str, names: Iterable[str]) -> str:
    return f"{prefix}({'|'.join(map(re.escape, names))})"


def exported() -> dict[str, str]:
    """Every figure of Envoy's as Prometheus names it, and what it tells."""
    # A label's value is no part of the name.
    port = {re.sub(r"\.(edge_|blocks_|tools)\.", ".", name): text for name, text in PORT.items()}
    return {
        **{f"envoy_{name.replace('.', '_')}": text for name, text in SERVER.items()},
        **{f"envoy_http_{name.replace('.', '_')}": text for name, text in port.items()},
        **{f"envoy_listener_{name.replace('.', '_')}": text for name, text in LISTENER.items()},
        **{f"envoy_cluster_{name}": text for name, text in TOOL.items()},
        f"envoy_cluster_{TOOL_TIME}": ABOUT_TIME,
    }
