"""One branch, what came of its legs, and how that is told."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any as Untyped
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed

from gateway.fanout.legs import Leg, Stream
from gateway.fanout.takers import Taker
from gateway.http2.reply import Answer
from llmesh.caller import CALL_ID_KEY, PROVENANCE_KEY
from llmesh.errors import ToolFailed
from llmesh.status import STATUS_KEY, status_from_error, status_from_parts, status_from_rpc

__all__ = ["CANCELLED", "EXPIRED", "OK", "Branch", "Outcome", "Respondent", "outcome_of", "outcome_of_stream"]

OK = status_pb2.Status()
CANCELLED = status_pb2.Status(code=grpc.StatusCode.CANCELLED.value[0], message="not needed any more")
EXPIRED = status_pb2.Status(code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0], message="it had not ended in time")
TYPES = "type.googleapis.com/"
# Of what an Any takes, beside its URL and its bytes: tags and lengths.
_FRAMED_BYTES = 16
_CALL_ID, _PROVENANCE, _STATUS = CALL_ID_KEY.encode(), PROVENANCE_KEY.encode(), STATUS_KEY.encode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a leg ended. response: of a method that gives one, if it did. call_id: empty if Envoy did not answer."""

    status: status_pb2.Status
    response: bytes | None = None
    call_id: str = ""
    provenance: str = ""

    @property
    def size_bytes(self) -> int:
        """About what it takes to be told, but for the response."""
        return len(self.provenance) + self.status.ByteSize()


@dataclass(frozen=True)
class Respondent:
    """Whose responses these are, and their type."""

    taker: Taker
    response: type[Message]

    @cached_property
    def path(self) -> str:
        """The method's, as it is called."""
        return f"/{self.taker.name}"

    @cached_property
    def type_url(self) -> str:
        """Of its responses, as they are told."""
        return TYPES + self.taker.method.response_type

    def read(self, data: bytes) -> Message | None:
        """The response in data; None if it is none."""
        try:
            return self.response.FromString(data)
        except DecodeError:
            return None

    def size_bytes(self, data: bytes) -> int:
        """About what the response takes as it is told: a stream of empty ones is not free."""
        return len(self.type_url) + _FRAMED_BYTES + len(data)

    def lies(self) -> status_pb2.Status:
        """What is told of a branch whose response is none."""
        message = f"what it gave is no `{self.taker.method.response_type}`"
        return status_from_error(ToolFailed(message, reason="MALFORMED_RESPONSE"))


@dataclass(eq=False, slots=True)
class Branch:
    """One method's part in a fan-out.

    began_s, ended_s: by the loop's clock, 0 until then. leg: the last one; None where none could be sent, and once all
    has been told.
    """

    respondent: Respondent
    began_s: float = 0.0
    ended_s: float = 0.0
    leg: Leg | None = None
    sent: int = 0
    # Responses that nobody was told yet, and what they come to.
    held: list[bytes] = field(default_factory=list[bytes])
    held_bytes: int = 0
    # Of an answer that is coming, what is held.
    coming_bytes: int = 0
    # Of a stream, set while it may be read on.
    room: asyncio.Event | None = None
    # How its leg ended, from then until it is known what becomes of the branch. And what is held of that until it has
    # been told.
    came: Outcome | None = None
    ending_bytes: int = 0
    # Why nothing more of what comes is taken.
    refused: status_pb2.Status | None = None
    # How it has ended, without a response, until that has been told.
    outcome: Outcome | None = None
    told: bool = False

    @property
    def streams(self) -> bool:
        """Whether it gives a stream of responses."""
        return self.respondent.taker.method.server_streaming

    @property
    def size_bytes(self) -> int:
        """About what is to be told of it now."""
        told = self.outcome
        return self.held_bytes + (told.size_bytes if told else 0)

    def hold(self, data: bytes, size: int) -> None:
        """A response that is to be told. size: what it comes to."""
        self.held.append(data)
        self.held_bytes += size

    def take(self) -> list[bytes]:
        """The responses that nobody was told yet; its stream is read on."""
        taken, self.held, self.held_bytes = self.held, [], 0
        if self.room is not None:
            self.room.set()
        return taken

    def forget(self) -> None:
        """Hold nothing any more."""
        self.held, self.came, self.outcome = [], None, None


def outcome_of(answer: Answer) -> Outcome:
    """How a call ended that gives one answer."""
    head, trailers = answer.head, answer.trailers
    call_id = head.get(_CALL_ID, b"").decode("ascii", "replace")
    provenance = (trailers.get(_PROVENANCE) or head.get(_PROVENANCE, b"")).decode("ascii", "replace")
    if not answer.code:
        return Outcome(OK, answer.response, call_id, provenance)
    status = status_from_parts(answer.code, answer.message, _decoded(trailers.get(_STATUS, b"")))
    return Outcome(status, None, call_id, provenance)


def _decoded(text: bytes) -> bytes:
    """What a header of bytes holds; nothing if it is none."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return b""


async def outcome_of_stream(call: Stream) -> Outcome:
    """How a stream ended that has been read to its end. Does not wait."""
    # The stubs know other metadata than the calls give.
    code, details = await call.code(), await call.details()
    initial, trailing = cast("Untyped", (await call.initial_metadata(), await call.trailing_metadata()))
    found = _texts(initial) | _texts(trailing)
    ok = code is grpc.StatusCode.OK
    status = OK if ok else status_from_rpc(grpc.aio.AioRpcError(code, initial, trailing, details))
    return Outcome(status, None, found.get(CALL_ID_KEY, ""), found.get(PROVENANCE_KEY, ""))


def _texts(metadata: Untyped) -> dict[str, str]:
    wanted = (CALL_ID_KEY, PROVENANCE_KEY)
    return {key: value for key, value in metadata or () if key in wanted and isinstance(value, str)}
