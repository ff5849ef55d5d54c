"""The listener every call comes through, static from Envoy's start.

Only three filters change while it runs, each delivered on its own: who may
vouch (`llmesh.verify`), what that grants (`llmesh.caller`), and what is
blocked (`llmesh.blocks`). The order of the filters is the order of the page
"The data path": edge, who, may, where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any as Untyped

from google.protobuf.message import Message
from google.rpc import code_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.snapshot import refusals
from gateway.snapshot.access import deny_all
from gateway.snapshot.service import ADS
from gateway.xds.messages import make, pack, type_url

VERIFY, CALLER, BLOCKS = "llmesh.verify", "llmesh.caller", "llmesh.blocks"
XDS_CLUSTER = "llmesh.xds"

_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_LUA = "envoy.extensions.filters.http.lua.v3.Lua"
_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"

# One digit to eight, then a unit: "gRPC over HTTP2", Timeout.
_GRPC_TIMEOUT = "[0-9]{1,8}[HMSmun]"
# The caller's own grpc-timeout, for as long as the edge looks at it; caller.lua removes it.
_ASKED_TIMEOUT = "x-llmesh-asked-timeout"
# Names that a caller may not send. `_` is a letter of metadata keys like any
# other, so keys that have it pass; but some libraries of tools read it as `-`.
_NOT_THE_CALLERS = "(x[-_](llmesh|envoy|forwarded)[-_]|x[-_]request[-_]id).*"
_CALL_ID = "x[-_]llmesh[-_]call[-_]id"
_CONTENT_TYPE = r"application/grpc(\+[a-z0-9.]+)?"
MAX_PATH_BYTES = 512
_PATH = "[^?#]+"
# As much of a path as is told and logged; never its query.
_SHOWN_PATH = "%PATH(NQ:PATH):256%"
_CONTENT, _METHOD, _MALFORMED_PATH, _LONG_PATH = "edge/content-type", "edge/method", "edge/path", "edge/path-length"
_RESET_DETAILS = "upstream_reset_before_response_started{"
# How a connection ends that stood; one that never stood is a "..._connection_failure".
_CUT_BY = ("connection_termination", "remote_reset", "protocol_error")
_JWT_DETAILS = "jwt_authn_access_denied"
# How soon Envoy looks for a gateway that was away; by default it would wait up to 30 s.
_RECONNECT: Mapping[str, Untyped] = {
    "retry_back_off": {"base_interval": {"nanos": 100_000_000}, "max_interval": {"seconds": 1}}
}
MAX_STREAMS = 1024
MAX_HEADERS_KB = 60


@dataclass(frozen=True, slots=True)
class Edge:
    """Where Envoy listens and writes. host, port: the mesh port. The rest are absolute paths."""

    host: str
    port: int
    admin_socket: str
    xds_socket: str
    call_log: str


def bootstrap(edge: Edge) -> Message:
    """Envoy's whole static configuration."""
    return make(
        "envoy.config.bootstrap.v3.Bootstrap",
        node={"id": "llmesh", "cluster": "llmesh"},
        admin={"address": {"pipe": {"path": edge.admin_socket, "mode": 0o600}}},
        dynamic_resources={
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": _RECONNECT}}],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ADS,
        },
        static_resources={"listeners": [_listener(edge)], "clusters": [_xds_cluster(edge)]},
        layered_runtime={"layers": [{"name": "static", "static_layer": {}}]},
    )


def _xds_cluster(edge: Edge) -> dict[str, Untyped]:
    http2 = make(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": {}},
    )
    endpoint = {"endpoint": {"address": {"pipe": {"path": edge.xds_socket}}}}
    return {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": {"seconds": 1},
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(http2)},
    }


def _listener(edge: Edge) -> dict[str, Untyped]:
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": pack(_manager(edge))}
    return {
        "name": "llmesh",
        "address": {"socket_address": {"address": edge.host, "port_value": edge.port}},
        "filter_chains": [{"filters": [manager]}],
        "per_connection_buffer_limit_bytes": {"value": 1 << 20},
    }


def _manager(edge: Edge) -> Message:
    return make(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="llmesh",
        codec_type="HTTP2",
        use_remote_address={"value": True},
        skip_xff_append=True,
        stream_idle_timeout={"seconds": 0},
        request_headers_timeout={"seconds": 10},
        max_request_headers_kb={"value": MAX_HEADERS_KB},
        http2_protocol_options={"max_concurrent_streams": {"value": MAX_STREAMS}},
        early_header_mutation_extensions=[_strip()],
        generate_request_id={"value": True},
        scoped_routes={
            "name": "tools",
            "scope_key_builder": {
                "fragments": [{"header_value_extractor": {"name": ":path", "element_separator": "/", "index": 1}}]
            },
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
        http_filters=_filters(),
        local_reply_config={"mappers": _local_replies()},
        access_log=[_call_log(edge.call_log)],
    )


def _strip() -> dict[str, Untyped]:
    """What no client may say: who it is, what Envoy should do, where it came from."""
    # Envoy replaces a malformed grpc-timeout by the route's cap before any filter sees it (1.40).
    asked = {"header": {"key": _ASKED_TIMEOUT, "value": "%REQ(GRPC-TIMEOUT)%"}, "append_action": "ADD_IF_ABSENT"}
    mutation = make(
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[_removed(_NOT_THE_CALLERS), {"append": asked}],
    )
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": pack(mutation)}


def _path_is_long() -> dict[str, Untyped]:
    # A regular expression that counts that far is larger than Envoy takes.
    path = {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "path"}}
    size = {"call_expr": {"function": "size", "args": [path]}}
    limit = {"const_expr": {"int64_value": MAX_PATH_BYTES}}
    return {"call_expr": {"function": "_>_", "args": [size, limit]}}


def _removed(names: str) -> dict[str, Untyped]:
    return {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": names}}}}


def _filters() -> list[dict[str, Untyped]]:
    return [
        {"name": "llmesh.call_id", "typed_config": pack(_call_id())},
        {"name": "llmesh.grpc_timeout", "typed_config": pack(_refuse_malformed_timeout())},
        {"name": "llmesh.edge", "typed_config": pack(_refuse_no_calls())},
        _discovered(VERIFY, _JWT),
        _discovered(CALLER, _LUA),
        _discovered(BLOCKS, _RBAC),
        {"name": "llmesh.forbid", "typed_config": pack(make(_RBAC))},
        {"name": "llmesh.allow", "typed_config": pack(deny_all())},
        {
            "name": "envoy.filters.http.router",
            "typed_config": pack(make("envoy.extensions.filters.http.router.v3.Router")),
        },
    ]


def _discovered(name: str, message: str) -> dict[str, Untyped]:
    # No default and no time limit: the port opens when the gateway has said
    # who may come in, never before.
    source = {**ADS, "initial_fetch_timeout": {"seconds": 0}}
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [type_url(message)]}}


def _call_id() -> Message:
    def header(value: str) -> dict[str, Untyped]:
        header = {"key": "x-llmesh-call-id", "value": value}
        return {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}

    return make(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={
            "request_mutations": [header("%REQ(X-REQUEST-ID)%")],
            "response_mutations": [_removed(_CALL_ID), header("%REQ(X-REQUEST-ID)%")],
            # The early mutation does not see trailers. Of a tool's, its provenance passes.
            "request_trailers_mutations": [_removed(_NOT_THE_CALLERS), _removed("authorization")],
            "response_trailers_mutations": [_removed(_CALL_ID)],
        },
    )


def _refuse_malformed_timeout() -> Message:
    # Where Envoy passes it on, it poisons the connection to the tool.
    matcher = {"safe_regex": {"regex": _GRPC_TIMEOUT}}
    return make(
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        abort={"grpc_status": 3, "percentage": {"numerator": 100}},
        headers=[{"name": _ASKED_TIMEOUT, "string_match": matcher, "invert_match": True}],
    )


def _refuse_no_calls() -> Message:
    content = {"name": "content-type", "string_match": {"safe_regex": {"regex": _CONTENT_TYPE}}, "invert_match": True}
    absent = {"name": "content-type", "present_match": False}
    method = {"name": ":method", "string_match": {"exact": "POST"}, "invert_match": True}
    # Envoy's routes do not look at a query, so it would pass, and a secret in it with it.
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": _PATH}}, "invert_match": True}
    refused = {_CONTENT: [content, absent], _METHOD: [method], _MALFORMED_PATH: [path]}
    policies: dict[str, Untyped] = {
        name: {"permissions": [{"header": header} for header in headers], "principals": [{"any": True}]}
        for name, headers in refused.items()
    }
    policies[_LONG_PATH] = {"permissions": [{"any": True}], "principals": [{"any": True}], "condition": _path_is_long()}
    return make(_RBAC, rules={"action": "DENY", "policies": policies}, rules_stat_prefix="edge_")


def blocks() -> Message:
    """Nothing is blocked. An empty tree, never no filter: without one, all calls are refused."""
    allow = make("envoy.config.rbac.v3.Action", name="not blocked", action="ALLOW")
    return make(
        _RBAC,
        matcher={"on_no_match": {"action": {"name": "allow", "typed_config": pack(allow)}}},
        rules_stat_prefix="blocks_",
    )


def _local_replies() -> list[dict[str, Untyped]]:
    """Envoy's own answers, in the caller's words. The first that fits is taken."""
    route, text = _in_route(refusals.DETAILS), _in_route(refusals.MESSAGE)
    unknown = f"no method {_SHOWN_PATH} on this mesh; `llmesh tools list` shows what there is"
    return [
        _reply(
            "response.code_details == 'fault_filter_abort'",
            "grpc-timeout is malformed: expected 1 to 8 digits and one of H M S m u n",
        ),
        _reply(_denied_by(_CONTENT), "this port speaks gRPC: content-type must be application/grpc", status=415),
        _reply(
            _denied_by(_METHOD),
            "this port speaks gRPC: a call is a POST",
            status=405,
            code=code_pb2.INVALID_ARGUMENT,
        ),
        _reply(
            f"({_denied_by(_MALFORMED_PATH)} || {_denied_by(_LONG_PATH)})",
            f"a call's path is /package.Service/Method: no query, no fragment, at most {MAX_PATH_BYTES} bytes",
            status=400,
            code=code_pb2.INVALID_ARGUMENT,
        ),
        _reply(
            # A token for another audience is answered with 403.
            f"response.code == 401 || response.code_details.startsWith('{_JWT_DETAILS}')",
            "%LOCAL_REPLY_BODY%; send `authorization: Bearer TOKEN`, with a token of an issuer that the mesh believes",
            status=401,
        ),
        _reply(
            f"response.code == 403 && response.code_details in {route}",
            f"%CEL({text}[response.code_details])%",
            details=f"%CEL({route}[response.code_details])%",
        ),
        _reply("response.code == 403 || response.code == 404", unknown, status=404),
        _composed(_details_start("overflow"), refusals.OVERLOADED, code_pb2.RESOURCE_EXHAUSTED),
        _composed(_details_start(*_CUT_BY), refusals.CUT, code_pb2.UNAVAILABLE),
        # Whatever else: no endpoint is healthy, or none could be connected to.
        _composed("response.code == 503", refusals.UNAVAILABLE, code_pb2.UNAVAILABLE),
    ]


def _denied_by(policy: str) -> str:
    return f"response.code_details == '{refusals.matched(policy)}'"


def _details_start(*reasons: str) -> str:
    starts = (f"response.code_details.startsWith('{_RESET_DETAILS}{reason}')" for reason in reasons)
    return f"({' || '.join(starts)})"


def _composed(when: str, name: str, code: int) -> dict[str, Untyped]:
    """What the route has composed under a name (refusals.py)."""
    route, text = _in_route(refusals.DETAILS), _in_route(refusals.MESSAGE)
    return _reply(
        f"{when} && '{name}' in {route}",
        f"%CEL({text}['{name}'])%",
        details=f"%CEL({route}['{name}'])%",
        code=code,
    )


def _in_route(name: str) -> str:
    return f"xds.route_metadata.filter_metadata['{name}']"


def _reply(
    when: str, body: str, *, status: int | None = None, details: str = "", code: int | None = None
) -> dict[str, Untyped]:
    """code: a gRPC code that Envoy would not make of the HTTP status."""
    matches = make("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=when)
    mapper: dict[str, Untyped] = {
        "filter": {
            "extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": pack(matches)}
        },
        "body_format_override": {"text_format_source": {"inline_string": body}},
    }
    if status is not None:
        mapper["status_code"] = {"value": status}
    added = {"grpc-status-details-bin": details, "grpc-status": "" if code is None else str(code)}
    mapper["headers_to_add"] = [{"header": {"key": key, "value": value}} for key, value in added.items() if value]
    return mapper


_CALL_LOG: Mapping[str, str] = {
    "time": "%START_TIME%",
    "call_id": "%REQ(X-REQUEST-ID)%",
    "path": _SHOWN_PATH,
    "issuer": "%DYNAMIC_METADATA(llmesh.caller:v:issuer)%",
    "caller": "%DYNAMIC_METADATA(llmesh.caller:v:subject)%",
    "contract": "%METADATA(ROUTE:llmesh:contract)%",
    "code": "%GRPC_STATUS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
}


def _call_log(path: str) -> dict[str, Untyped]:
    log = make(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": dict(_CALL_LOG)},
    )
    return {"name": "envoy.access_loggers.file", "typed_config": pack(log)}
