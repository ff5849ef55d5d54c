"""How large a method's messages may be, as its contract states, where each way has one.

Envoy holds such a message back until it is whole (listener/sizes.lua), so that
the size is kept whatever the tool is written in. Streams are never held back,
nor are sizes that would fill Envoy's memory: those are the SDK's to keep.
"""

from __future__ import annotations

from typing import Any as Untyped

from gateway.catalog import Method
from gateway.snapshot import refusals
from gateway.xds.messages import make, pack

# The filter, which stands disabled until a route turns it on.
SIZES = "llmesh.sizes"
# As much as Envoy holds of a request anyway, to send it once more.
MAX_HELD_BYTES = 1 << 20


def held_to(method: Method) -> tuple[int, int]:
    """The bytes that Envoy holds a request and a response of the method to; 0: to none."""
    stated = method.options
    request = stated.max_request_bytes if not method.client_streaming else 0
    response = stated.max_response_bytes if not method.server_streaming else 0
    return request if request <= MAX_HELD_BYTES else 0, response if response <= MAX_HELD_BYTES else 0


def bounded(method: Method, path: str) -> dict[str, Untyped]:
    """What a route says of filters, for its method's messages to be held to their sizes."""
    request, response = held_to(method)
    context: dict[str, Untyped] = {}
    if request:
        context["max_request_bytes"] = request
    if response:
        status = refusals.response_too_large(path, response)
        context["max_response_bytes"] = response
        context["message"] = status.message
        context["details"] = refusals.encoded(status)
    if not context:
        return {}
    held = make("envoy.extensions.filters.http.lua.v3.LuaPerRoute", filter_context=context)
    return {SIZES: pack(held)}
