"""How large the messages of a method may be: what its contract says, or else what every tool takes."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import descriptor_pool

from llmesh.api.options.v1 import options_pb2 as options
from llmesh.errors import InvalidCall, ToolFailed

MESSAGE_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """The largest request and response of a method in bytes, each message of a stream by itself."""

    method: str
    request: int
    response: int

    def check_request(self, size: int) -> None:
        """Raise InvalidCall for one that is larger."""
        if size > self.request:
            message = f"the request has more than {self.request} bytes, which is the most that {self.method} takes"
            raise InvalidCall(message, reason="REQUEST_TOO_LARGE", metadata=_facts(self.request))

    def check_response(self, size: int) -> None:
        """Raise ToolFailed for one that is larger."""
        if size > self.response:
            message = f"the response has more than {self.response} bytes, which is the most that {self.method} gives"
            raise ToolFailed(message, reason="RESPONSE_TOO_LARGE", metadata=_facts(self.response))


def sizes_of(service: str, method: str) -> Sizes:
    """What the contract says of a method, at most what every tool takes. One without a descriptor says nothing."""
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
    except KeyError:
        return Sizes(f"{service}/{method}", MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES)
    stated = descriptor.GetOptions().Extensions[options.method]
    return Sizes(
        f"{service}/{method}",
        min(stated.max_request_bytes or MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES),
        min(stated.max_response_bytes or MESSAGE_MAX_BYTES, MESSAGE_MAX_BYTES),
    )


def _facts(limit: int) -> dict[str, str]:
    return {"max_bytes": str(limit)}
