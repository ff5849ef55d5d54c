"""What the gateway is told of a fan-out's call, and no tool of its own: whom it is made for, and from where.

The gateway calls for others then, through a listener of its own
(listener/listener.py), and must not let them do there what they may not do
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any as Untyped

from gateway.catalog import Method, Tool
from governance.delegation import FAN_OUT

# The IP address that the call comes from, as rules read it.
ADDRESS = "x-llmesh-address"
# What a tool that calls for its caller was given: the payload of its token, base64url. Not there for other callers.
DELEGATED = "x-llmesh-delegated"
# For a caller that states no deadline, as for any call that answers once. Envoy ends the call then: what the gateway
# holds for somebody who does not read is held no longer.
DEFAULT_S = 30


def told(tool: Tool, method: Method) -> Iterator[dict[str, Untyped]]:
    """What the route of a fan-out adds to a call's headers; nothing for other methods."""
    if f"/{tool.service}/{method.name}" == FAN_OUT:
        address = {"key": ADDRESS, "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
        yield {"header": address, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def unstated(tool: Tool, method: Method) -> timedelta:
    """How long a call of a method may take whose caller states no deadline; the gateway is told it too."""
    return timedelta(seconds=DEFAULT_S) if f"/{tool.service}/{method.name}" == FAN_OUT else method.deadline
