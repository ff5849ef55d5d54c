"""One tool's Envoy resources, all named by its service: cluster, endpoints, routes, scope."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.catalog import Endpoint, Method, Tool
from gateway.snapshot import access, caller, fanout, refusals, tls
from gateway.snapshot.ads import ADS
from gateway.snapshot.delegate import delegated
from gateway.snapshot.parts import Part, concurrency_of, parts
from gateway.snapshot.quotas import turned_on
from gateway.snapshot.sizes import bounded, held_to
from gateway.xds.messages import make, pack
from governance.residue import Residue
from llmesh.api.options.v1 import options_pb2 as options

CALL_ID = "x-llmesh-call-id"
# Says, of a call of a method that changes something or streams, that its start is to be logged.
STARTS = "x-llmesh-logs-start"
CONNECT_TIMEOUT_S = 2
# A pool outlives the client's connection that it was made for; without calls, its connection to the tool ends then.
# Envoy's own hour would fill a tool with connections of clients that come anew for each call.
IDLE_S = 10
# Of a connection over TLS: calls under way end as they would, new ones go over another.
TLS_CONNECTION_S = 600
HEALTH_INTERVAL_S = 1
# A tool that has no processor to run on looks like one that hangs: on a busy machine, one second, missed twice, took
# healthy ones out. One that is dead waits for none of this: its connection fails. No longer than this a look, as a
# new cluster is taken up after its first.
HEALTH_TIMEOUT_S = 3
HEALTH_MISSES = 3
# Of a tool that was healthy when last asked, and that was never called.
UNCALLED_INTERVAL_S = 30
# Each client that calls the tool has its own (docs/adr/014): as many as the mesh port takes by default.
MAX_CONNECTIONS = 10_000
# A read is tried once more. Enough at once for an endpoint that dies with its
# calls; beyond that a fifth of the calls in flight, lest retries bury a tool.
RETRIES = 1
RETRIES_ALWAYS = 64
RETRY_BUDGET_PERCENT = 20.0

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(tool: Tool, *, over_tls: bool = False, part: Part | None = None) -> Message:
    """The tool's endpoints as one upstream: balancing, health, ejection, concurrency.

    part: None for the whole tool. over_tls: whether the mesh reaches tools
    over TLS. Then each cluster does, whatever its endpoints are now, but to
    those that are marked: Envoy would call one that comes later in the clear
    until it has taken up a changed cluster.
    """
    return make(
        "envoy.config.cluster.v3.Cluster",
        name=part.name if part else tool.service,
        type="EDS",
        eds_cluster_config={"eds_config": ADS},
        connect_timeout={"seconds": CONNECT_TIMEOUT_S},
        # A malformed call can make a tool end the connection it came by, and with it the calls beside it: these are the
        # same caller's, then.
        connection_pool_per_downstream_connection=True,
        lb_policy="LEAST_REQUEST",
        # Never call endpoints known to be down because all are; and tell the
        # workers at once: Envoy gathers changes for a second, in which it would
        # call an ejected endpoint again.
        common_lb_config={"healthy_panic_threshold": {"value": 0.0}, "update_merge_window": {"seconds": 0}},
        # An endpoint that is taken away gets no more calls, though it is healthy: it leaves.
        ignore_health_on_host_removal=True,
        circuit_breakers={"thresholds": [_thresholds(part.max_concurrency if part else concurrency_of(tool))]},
        outlier_detection=_outlier_detection(),
        health_checks=[_health_check(tool)] if tool.health_checked else [],
        typed_extension_protocol_options={_HTTP: pack(http2(over_tls=over_tls))},
        **(tls.to_tools() if over_tls else {}),
    )


def _thresholds(limit: int) -> dict[str, Untyped]:
    return {
        "max_connections": {"value": MAX_CONNECTIONS},
        "max_requests": {"value": limit},
        "max_pending_requests": {"value": limit},
        "retry_budget": {
            "budget_percent": {"value": RETRY_BUDGET_PERCENT},
            "min_retry_concurrency": {"value": RETRIES_ALWAYS},
        },
    }


def _outlier_detection() -> dict[str, Untyped]:
    # Connection failures only: what a tool answers one caller must not eject it for others.
    off = {"value": 0}
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": {"value": 3},
        "enforcing_consecutive_local_origin_failure": {"value": 100},
        "enforcing_consecutive_5xx": off,
        "enforcing_consecutive_gateway_failure": off,
        "enforcing_success_rate": off,
        "enforcing_local_origin_success_rate": off,
        "interval": {"seconds": 1},
        # Only until the gateway has noticed too; an endpoint that returned must not wait for longer.
        "base_ejection_time": {"seconds": 1},
        "max_ejection_time": {"seconds": 1},
        "max_ejection_percent": {"value": 100},
    }


def _health_check(tool: Tool) -> dict[str, Untyped]:
    return {
        "timeout": {"seconds": HEALTH_TIMEOUT_S},
        "interval": {"seconds": HEALTH_INTERVAL_S},
        # Defaults to 60 s, which looks as if health checks did not work.
        "no_traffic_interval": {"seconds": HEALTH_INTERVAL_S},
        # Ten thousand tools that nobody calls must not keep the machine busy.
        "no_traffic_healthy_interval": {"seconds": UNCALLED_INTERVAL_S},
        "interval_jitter_percent": 20,
        "unhealthy_threshold": {"value": HEALTH_MISSES},
        "healthy_threshold": {"value": 1},
        # A connection that is kept for it takes a third of all that Envoy holds of a tool.
        "reuse_connection": {"value": False},
        "grpc_health_check": {"service_name": tool.service},
    }


def http2(*, over_tls: bool = False) -> Message:
    """How Envoy speaks to a tool."""
    # Certificates are looked at when a connection begins: one that stands would outlive an authority.
    lives = {"max_connection_duration": {"seconds": TLS_CONNECTION_S}} if over_tls else {}
    return make(
        _HTTP,
        common_http_protocol_options={"idle_timeout": {"seconds": IDLE_S}, **lives},
        explicit_http_config={
            "http2_protocol_options": {
                # The table of header fields stays on: gRPC's C core tells that a deadline has passed without the word
                # on the table that its first answer would have to begin with, were there none. That would end the
                # connection, with all its calls.
                "initial_stream_window_size": {"value": 1 << 20},
                "initial_connection_window_size": {"value": 16 << 20},
            }
        },
    )


def endpoints(tool: Tool, *, over_tls: bool = False, part: Part | None = None) -> Message:
    """Where the tool, or a part of it, listens; an endpoint that does not answer is listed as unhealthy.

    over_tls: as its cluster's.
    """
    return make(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        cluster_name=part.name if part else tool.service,
        endpoints=[
            {
                "lb_endpoints": [
                    _reached(endpoint, over_tls=over_tls)
                    | {"health_status": "UNKNOWN" if endpoint in tool.ready else "UNHEALTHY"}
                    for endpoint in (part or tool).endpoints
                ]
            }
        ],
    )


def _reached(endpoint: Endpoint, *, over_tls: bool) -> dict[str, Untyped]:
    if endpoint.tls_name:
        return {"endpoint": {"address": address(endpoint), "hostname": endpoint.tls_name}}
    return {"endpoint": {"address": address(endpoint)}, **({"metadata": tls.without()} if over_tls else {})}


def address(endpoint: Endpoint) -> dict[str, Untyped]:
    """An Envoy core Address, as fields."""
    if endpoint.address.startswith("unix:"):
        return {"pipe": {"path": endpoint.address.removeprefix("unix:")}}
    host, _, port = endpoint.address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def scope(tool: Tool) -> Message:
    """What makes the service name in a call's path pick the tool's own routes."""
    return make(
        "envoy.config.route.v3.ScopedRouteConfiguration",
        name=tool.service,
        route_configuration_name=tool.service,
        key={"fragments": [{"string_key": tool.service}]},
    )


def routes(tool: Tool, residues: Mapping[str, Residue], *, quotas: Collection[str] = ()) -> Message:
    """One route a method, by its exact path. residues: method name -> residue. quotas: that the mesh has."""
    clusters = {method: part.name for part in parts(tool) for method in part.methods}
    return make(
        "envoy.config.route.v3.RouteConfiguration",
        name=tool.service,
        virtual_hosts=[
            {
                "name": tool.service,
                "domains": ["*"],
                "metadata": _packed(refusals.tool_metadata(tool.service)),
                "response_headers_to_add": [call_id()],
                "routes": [
                    _route(tool, method, residues[method.name], clusters.get(method.name, tool.service), quotas)
                    for method in tool.methods
                ],
            }
        ],
    )


def call_id() -> dict[str, Untyped]:
    """The header that gives a caller the call's id, whatever the tool says of it. A HeaderValueOption."""
    return {"header": {"key": CALL_ID, "value": "%REQ(X-REQUEST-ID)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _route(tool: Tool, method: Method, residue: Residue, cluster: str, quotas: Collection[str]) -> dict[str, Untyped]:
    route: dict[str, Untyped] = {
        # The call log tells it; for a field of the metadata, Envoy would copy all of that for each call.
        "name": tool.contract.digest,
        "match": {"path": residue.tool.path},
        "route": _action(method, cluster, unstated=fanout.unstated(tool, method)),
        "typed_per_filter_config": {
            "llmesh.rules": access.rules(residue),
            # The tool's delegation is made of it, too.
            **(caller.typed() if access.are_typed(residue) or method.options.uses else {}),
            **turned_on(method, quotas),
            **bounded(method, residue.tool.path),
            **delegated(tool, method),
        },
        "metadata": _packed(refusals.route_metadata(residue, sizes=held_to(method))),
    }
    if headers := [*_added(method), *fanout.told(tool, method)]:
        route["request_headers_to_add"] = headers
    return route


def _added(method: Method) -> Iterator[dict[str, Untyped]]:
    """What a route adds to a call's headers."""
    if method.idle is None:
        # A caller that states no deadline: the tool still learns how long it has.
        header = {"key": "grpc-timeout", "value": f"{_milliseconds(method.deadline)}m"}
        yield {"header": header, "append_action": "ADD_IF_ABSENT"}
    if method.effect != options.EFFECT_READ or method.client_streaming or method.server_streaming:
        # Read off a header this costs other calls next to nothing; no caller can say it.
        yield {"header": {"key": STARTS, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _action(method: Method, cluster: str, *, unstated: timedelta) -> dict[str, Untyped]:
    """unstated: how long a call may take whose caller states no deadline."""
    longest = {"max_stream_duration": _duration(unstated), "grpc_timeout_header_max": _duration(method.deadline)}
    action: dict[str, Untyped] = {
        "cluster": cluster,
        # The default of 15 s would cut long calls.
        "timeout": {"seconds": 0},
        "max_stream_duration": longest,
    }
    if method.idle is not None:
        action["idle_timeout"] = _duration(method.idle)
    # Only what changes nothing is sent twice; a stream of requests would have to be kept.
    if method.idempotent and not method.client_streaming:
        action["retry_policy"] = {
            # cancelled: gRPC servers that stop say so of calls that were on their way.
            "retry_on": "connect-failure,refused-stream,reset,unavailable,cancelled",
            "num_retries": {"value": RETRIES},
            "retry_back_off": {"base_interval": {"nanos": 25_000_000}, "max_interval": {"nanos": 250_000_000}},
            # Picking is by chance: with two endpoints, 3 tries pick the dead one again in one case of 16.
            "host_selection_retry_max_attempts": 12,
            "retry_host_predicate": [
                {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": _not_again()}
            ],
        }
    return action


@cache
def _not_again() -> dict[str, Untyped]:
    return pack(make("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"))


def _struct(fields: Mapping[str, str]) -> Message:
    return make("google.protobuf.Struct", fields={key: {"string_value": value} for key, value in fields.items()})


def _packed(metadata: Mapping[str, Mapping[str, str]]) -> dict[str, Untyped]:
    # Envoy holds a packed struct as so many bytes. One that is not takes it five times as much, measured, for
    # every route, and is only read when a call is refused.
    return {"typed_filter_metadata": {name: pack(_struct(fields)) for name, fields in metadata.items()}}


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _duration(span: timedelta) -> dict[str, int]:
    return {"seconds": span // timedelta(seconds=1), "nanos": span.microseconds * 1000}
