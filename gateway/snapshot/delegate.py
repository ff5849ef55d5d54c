"""What a tool may call for its caller: the step that gives a call its delegation before the tool gets it.

Only methods whose contract lists what they use take it; on all other routes
the filter is off, and costs nothing. The gateway answers it
(services/tokens.py); while it is away, the tool gets the call without one, and
is told so: the rules have let the call in, and it can call nobody by it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.catalog import Method, Tool
from gateway.snapshot.predicate import CALLER
from gateway.xds.messages import make, pack
from llmesh.caller import CALL_ID_KEY

DELEGATE = "llmesh.delegate"
# The route's facts, as the gateway is asked with them.
DOMAIN, USES, DEADLINE_MS = "domain", "uses", "deadline_ms"
# How long the gateway may take.
_TIMEOUT_S = 2
# What it is told of a call's headers, beside the call's id.
TIMEOUT = "grpc-timeout"

_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3"


def delegate(cluster: str) -> Message:
    """The filter, for the routes that turn it on. cluster: where the gateway answers it."""
    return make(
        f"{_AUTHZ}.ExtAuthz",
        transport_api_version="V3",
        grpc_service={"envoy_grpc": {"cluster_name": cluster}, "timeout": {"seconds": _TIMEOUT_S}},
        allowed_headers={"patterns": [{"exact": TIMEOUT}, {"exact": CALL_ID_KEY}]},
        metadata_context_namespaces=[CALLER],
        failure_mode_allow=True,
        # By a header, llmesh._delegation.AWAY_KEY.
        failure_mode_allow_header_add=True,
    )


def delegated(tool: Tool, method: Method) -> dict[str, Untyped]:
    """What turns the filter on for a method that uses others: the per-route settings, by the filter's name."""
    if not method.options.uses:
        return {}
    facts = {
        DOMAIN: tool.domain,
        USES: " ".join(method.options.uses),
        DEADLINE_MS: str(method.deadline // timedelta(milliseconds=1)),
    }
    settings = make(f"{_AUTHZ}.ExtAuthzPerRoute", check_settings={"context_extensions": facts})
    return {DELEGATE: pack(settings)}
