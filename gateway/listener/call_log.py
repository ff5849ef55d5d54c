"""The call log: a line of JSON at a call's end, for some at its start too, without anything of its contents.

The decision records are made of it (gateway/records/logged.py). Each field
costs every call; what is read off a header is the cheapest.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any as Untyped

from gateway.snapshot import blocks
from gateway.snapshot.service import STARTS
from gateway.xds.messages import make, pack

# As much of a path as is told; never its query.
SHOWN_PATH = "%PATH(NQ:PATH):256%"
# As long as any tool's own is, so that what is logged of a method is its whole name.
_LOGGED_PATH = "%PATH(NQ:PATH):512%"
# The SDK's own limit.
_PROVENANCE_BYTES = 4096

_CALL: Mapping[str, str] = MappingProxyType(
    {
        "time": "%START_TIME%",
        "call_id": "%REQ(X-REQUEST-ID)%",
        "path": _LOGGED_PATH,
        # No caller can say them: the edge removes them, and caller.lua sets them anew.
        "issuer": "%REQ(X-LLMESH-ISSUER)%",
        "caller": "%REQ(X-LLMESH-SUBJECT)%",
        "roles": "%REQ(X-LLMESH-ROLES)%",
        "domain": "%REQ(X-LLMESH-DOMAIN)%",
        "clearances": "%REQ(X-LLMESH-CLEARANCES)%",
        "actor": "%REQ(X-LLMESH-ACTOR)%",
        "parent": "%REQ(X-LLMESH-PARENT)%",
        "contract": "%ROUTE_NAME%",
        # A rule may ask for it.
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    }
)
_END: Mapping[str, str] = MappingProxyType(
    {
        "code": "%GRPC_STATUS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        # Which block stopped it; "free" where none did.
        "block": f"%DYNAMIC_METADATA({blocks.METADATA}:{blocks.STATUS})%",
        "provenance": f"%TRAILER(X-LLMESH-PROVENANCE):{_PROVENANCE_BYTES}%",
        # Of an error that is all trailers.
        "provenance_of_error": f"%RESP(X-LLMESH-PROVENANCE):{_PROVENANCE_BYTES}%",
    }
)
_TRACED: Mapping[str, str] = MappingProxyType({"trace_id": "%TRACE_ID%"})
START = "start"


def call_log(path: str, *, traced: bool = False) -> dict[str, Untyped]:
    """The connection manager's access log, which writes to a path. traced: whether calls have a trace's id."""
    return _log(path, {**_CALL, **_END, **(_TRACED if traced else {})})


def start_log(path: str, *, traced: bool = False) -> dict[str, Untyped]:
    """The router's log of calls that have been let through, of routes that ask for it by a header."""
    marked = {"header_filter": {"header": {"name": STARTS, "present_match": True}}}
    begins = {"log_type_filter": {"types": ["UpstreamPoolReady"]}}
    fields = {**_CALL, "phase": START, **(_TRACED if traced else {})}
    return {**_log(path, fields), "filter": {"and_filter": {"filters": [begins, marked]}}}


def _log(path: str, fields: Mapping[str, str]) -> dict[str, Untyped]:
    log = make(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog", path=path, log_format={"json_format": dict(fields)}
    )
    return {"name": "envoy.access_loggers.file", "typed_config": pack(log)}
