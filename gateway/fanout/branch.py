"""What came of one leg, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any as Untyped
from typing import cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed

from gateway.fanout.legs import Call
from gateway.fanout.takers import Taker
from llmesh.caller import CALL_ID_KEY, PROVENANCE_KEY
from llmesh.errors import ToolFailed
from llmesh.status import status_from_error, status_from_rpc

__all__ = ["CANCELLED", "EXPIRED", "OK", "Outcome", "Respondent", "outcome_of"]

OK = status_pb2.Status()
CANCELLED = status_pb2.Status(code=grpc.StatusCode.CANCELLED.value[0], message="not needed any more")
EXPIRED = status_pb2.Status(code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0], message="it had not ended in time")
TYPES = "type.googleapis.com/"
# Of what an Any takes, beside its URL and its bytes: tags and lengths.
_FRAMED_BYTES = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a leg ended. response: of a method that gives one, if it did. call_id: empty if Envoy did not answer."""

    status: status_pb2.Status
    response: bytes | None = None
    call_id: str = ""
    provenance: str = ""


@dataclass(frozen=True, slots=True)
class Respondent:
    """Whose responses these are, and their type."""

    taker: Taker
    response: type[Message]

    def read(self, data: bytes) -> Message | None:
        """The response in data; None if it is none."""
        try:
            return self.response.FromString(data)
        except DecodeError:
            return None

    def size_bytes(self, data: bytes) -> int:
        """About what the response takes as it is told: a stream of empty ones is not free."""
        return len(TYPES) + len(self.taker.method.response_type) + _FRAMED_BYTES + len(data)

    def packed(self, data: bytes) -> Any:
        """The response as it is told."""
        return Any(type_url=TYPES + self.taker.method.response_type, value=data)

    def lies(self) -> status_pb2.Status:
        """What is told of a branch whose response is none."""
        message = f"what it gave is no `{self.taker.method.response_type}`"
        return status_from_error(ToolFailed(message, reason="MALFORMED_RESPONSE"))


async def outcome_of(call: Call) -> Outcome:
    """How a call that is over ended; it was not cancelled here. Does not wait."""
    try:
        response = await call if isinstance(call, grpc.aio.UnaryUnaryCall) else None
        if response is None and await call.code() is not grpc.StatusCode.OK:
            raise await _error_of(call)
    except grpc.aio.AioRpcError as err:
        found = _texts(err.initial_metadata()) | _texts(err.trailing_metadata())
        return _outcome(status_from_rpc(err), None, found)
    found = _texts(await call.initial_metadata()) | _texts(await call.trailing_metadata())
    return _outcome(OK, cast("bytes | None", response), found)


async def _error_of(call: Call) -> grpc.aio.AioRpcError:
    # The stubs know other metadata than the calls give.
    initial, trailing = cast("Untyped", (await call.initial_metadata(), await call.trailing_metadata()))
    return grpc.aio.AioRpcError(await call.code(), initial, trailing, await call.details())


def _texts(metadata: Untyped) -> dict[str, str]:
    wanted = (CALL_ID_KEY, PROVENANCE_KEY)
    return {key: value for key, value in metadata or () if key in wanted and isinstance(value, str)}


def _outcome(status: status_pb2.Status, response: bytes | None, found: dict[str, str]) -> Outcome:
    return Outcome(status, response, found.get(CALL_ID_KEY, ""), found.get(PROVENANCE_KEY, ""))
