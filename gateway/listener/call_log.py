"""The call log: one line of JSON a call, without anything of its contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Untyped

from gateway.xds.messages import make, pack

# As much of a path as is told and logged; never its query.
SHOWN_PATH = "%PATH(NQ:PATH):256%"

_FIELDS: Mapping[str, str] = {
    "time": "%START_TIME%",
    "call_id": "%REQ(X-REQUEST-ID)%",
    "path": SHOWN_PATH,
    # No caller can say them: the edge removes them, and caller.lua sets them anew.
    "issuer": "%REQ(X-LLMESH-ISSUER)%",
    "caller": "%REQ(X-LLMESH-SUBJECT)%",
    "contract": "%ROUTE_NAME%",
    "code": "%GRPC_STATUS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
}


def call_log(path: str) -> dict[str, Untyped]:
    """The access log that writes to a path."""
    log = make(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": dict(_FIELDS)},
    )
    return {"name": "envoy.access_loggers.file", "typed_config": pack(log)}
