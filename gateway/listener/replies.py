"""Envoy's own answers, in the caller's words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any as Untyped

from google.rpc import code_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.listener import floods, quotas, tokens
from gateway.listener.call_log import SHOWN_PATH
from gateway.listener.edge import CONTENT, ENCODING, MALFORMED_PATH, MAX_PATH_BYTES, METHOD, TIMEOUT
from gateway.snapshot import blocks, refusals
from gateway.snapshot.caller import DELEGATION
from gateway.snapshot.service import call_id
from gateway.xds.messages import make, pack
from llmesh.mesh_file import LimitSettings

_RESET_DETAILS = "upstream_reset_before_response_started{"
# How a connection ends that stood; one that never stood is a "..._connection_failure".
_CUT_BY = ("connection_termination", "remote_reset", "protocol_error")
_A_FRAGMENT = "response.code_details == 'path_normalization_failed'"
# Of what no route has.
_TOO_LONG = f"(response.code in [403, 404] && size(request.path) > {MAX_PATH_BYTES})"
_DELEGATED = f"'{DELEGATION}' in request.headers"
_PACKED = "typed_filter_metadata"


def local_replies(limits: LimitSettings) -> list[dict[str, Untyped]]:
    """Envoy's own answers, in the caller's words. The first that fits is taken."""
    unknown = f"no method {SHOWN_PATH} on this mesh; `llmesh tools list` shows what there is"
    return [
        *_to_no_calls(),
        _told(f"response.code == 429 && response.code_details == '{floods.DETAILS}'", refusals.flooded()),
        *(_over_quota(name, calls_per_s) for name, calls_per_s in quotas.stated(limits).items()),
        *_to_bad_tokens(),
        _blocked(),
        _denied(),
        *_to_large_messages(),
        _reply("response.code == 403 || response.code == 404", unknown, status=404),
        *_for_tools_that_fail(),
        # And what is told in Envoy's words: a deadline that passed.
        _reply("true", "%LOCAL_REPLY_BODY%"),
    ]


def _to_no_calls() -> Iterator[dict[str, Untyped]]:
    yield _reply(
        _denied_by(TIMEOUT),
        "grpc-timeout is malformed: expected 1 to 8 digits and one of H M S m u n",
        status=400,
        code=code_pb2.INVALID_ARGUMENT,
    )
    yield _reply(
        _denied_by(ENCODING),
        "grpc-encoding is unknown: messages are compressed by gzip or deflate, or not at all",
        status=415,
        code=code_pb2.UNIMPLEMENTED,
    )
    yield _reply(_denied_by(CONTENT), "this port speaks gRPC: content-type must be application/grpc", status=415)
    yield _reply(
        _denied_by(METHOD), "this port speaks gRPC: a call is a POST", status=405, code=code_pb2.INVALID_ARGUMENT
    )
    yield _reply(
        f"({_denied_by(MALFORMED_PATH)} || {_TOO_LONG} || {_A_FRAGMENT})",
        f"a call's path is /package.Service/Method: no query, no fragment, at most {MAX_PATH_BYTES} bytes",
        status=400,
        code=code_pb2.INVALID_ARGUMENT,
    )


def _over_quota(quota: str, calls_per_s: int) -> dict[str, Untyped]:
    when = f"response.code_details == '{quotas.DETAILS}' && response.headers['{quotas.NAMED_IN}'] == '{quota}'"
    return _told(when, refusals.over_quota(quota, calls_per_s))


def _to_bad_tokens() -> Iterator[dict[str, Untyped]]:
    # A token for another audience is answered with 403.
    yield _one_of(tokens.statuses(tokens.CALL_FOR_CALLERS), also=_DELEGATED)
    yield _one_of(tokens.statuses(refusals.SEND_ANOTHER))
    # What caller.lua and delegation.lua say of a token that is in order; they bring the details.
    yield _reply(f"response.code in [401, 403] && response.code_details == '{floods.DETAILS}'", "%LOCAL_REPLY_BODY%")
    rest = f"response.code == 401 || response.code_details.startsWith('{tokens.DETAILS}')"
    yield _reply(f"{_DELEGATED} && ({rest})", f"%LOCAL_REPLY_BODY%{tokens.CALL_FOR_CALLERS}", status=401)
    yield _reply(rest, f"%LOCAL_REPLY_BODY%{refusals.SEND_ANOTHER}", status=401)


def _one_of(statuses: Mapping[str, status_pb2.Status], *, also: str = "true") -> dict[str, Untyped]:
    """The status by the response code details. also: what has to hold besides."""
    messages = json.dumps({details: status.message for details, status in statuses.items()})
    encoded = json.dumps({details: refusals.encoded(status) for details, status in statuses.items()})
    return _reply(
        f"response.code_details in {json.dumps(list(statuses))} && {also}",
        f"%CEL({messages}[response.code_details])%",
        status=401,
        details=f"%CEL({encoded}[response.code_details])%",
    )


def _blocked() -> dict[str, Untyped]:
    """What the block says, unless it stops what the caller may not know of; then what an unknown method is told."""
    told = f"metadata.filter_metadata['{blocks.METADATA}']['{blocks.MESSAGE}'] != '{blocks.UNKNOWN}'"
    return _reply(
        f"{_denied_by(blocks.BLOCKED)} && {told}",
        f"%DYNAMIC_METADATA({blocks.METADATA}:{blocks.MESSAGE})%",
        details=f"%DYNAMIC_METADATA({blocks.METADATA}:{blocks.STATUS})%",
    )


def _denied() -> dict[str, Untyped]:
    """What the rule says that denied."""
    route, text = (f"xds.route_metadata.{_PACKED}['{name}']" for name in (refusals.DETAILS, refusals.MESSAGE))
    return _reply(
        f"response.code == 403 && response.code_details in {route}",
        f"%CEL({text}[response.code_details])%",
        details=f"%CEL({route}[response.code_details])%",
    )


def _to_large_messages() -> Iterator[dict[str, Untyped]]:
    request, response = refusals.REQUEST_TOO_LARGE, refusals.RESPONSE_TOO_LARGE
    yield _composed("response.code == 413", request, code_pb2.INVALID_ARGUMENT, of="route")
    yield _composed(f"response.code_details == '{response}'", response, code_pb2.INTERNAL, of="route")


def _for_tools_that_fail() -> Iterator[dict[str, Untyped]]:
    yield _composed(_details_start("overflow"), refusals.OVERLOADED, code_pb2.RESOURCE_EXHAUSTED)
    yield _composed(_details_start(*_CUT_BY), refusals.CUT, code_pb2.UNAVAILABLE)
    # Whatever else: no endpoint is healthy, or none could be connected to.
    yield _composed("response.code == 503", refusals.UNAVAILABLE, code_pb2.UNAVAILABLE)


def _denied_by(policy: str) -> str:
    return f"response.code_details == '{refusals.matched(policy)}'"


def _details_start(*reasons: str) -> str:
    starts = (f"response.code_details.startsWith('{_RESET_DETAILS}{reason}')" for reason in reasons)
    return f"({' || '.join(starts)})"


def _told(when: str, status: status_pb2.Status) -> dict[str, Untyped]:
    return _reply(when, status.message, details=refusals.encoded(status), code=status.code)


def _composed(when: str, name: str, code: int, *, of: str = "virtual_host") -> dict[str, Untyped]:
    """What the tool, or its method (of: "route"), has composed under a name (refusals.py)."""
    composed, text = (f"xds.{of}_metadata.{_PACKED}['{kind}']" for kind in (refusals.DETAILS, refusals.MESSAGE))
    return _reply(
        f"{when} && '{name}' in {composed}",
        f"%CEL({text}['{name}'])%",
        details=f"%CEL({composed}['{name}'])%",
        code=code,
    )


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
    mapper["headers_to_add"] = [
        call_id(),
        *({"header": {"key": key, "value": value}} for key, value in added.items() if value),
    ]
    return mapper
