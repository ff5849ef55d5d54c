"""One method's part in a fan-out, as a caller reads it."""

from __future__ import annotations

__all__ = ["Branch", "Read", "read_as", "read_branch", "read_known", "read_merged"]

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.errors import InvalidCall, MeshError, ToolFailed, Unavailable, Violation
from llmesh.status import error_from_status

R = TypeVar("R", bound=Message)
Read = Callable[[any_pb2.Any], R]
"""Unpacks an answer. Raises ToolFailed for what is none, and InvalidCall for what is to be read as another type."""


# Without slots: Python 3.11 cannot make a `Branch[X](...)` of a generic class that is frozen and has them.
@dataclass(frozen=True)
class Branch(Generic[R]):
    """One method's part in a fan-out; of a method that streams, a piece of it, and the last piece has ended.

    tool: full name of its service. error: why it failed; None if it did not. What follows is known at the end.
    latency_s: from its sending on. attempts: how often it was sent. provenance: what the tool says that the answer
    rests on. call_id: the mesh's, empty if the call got none.
    """

    tool: str
    method: str
    responses: tuple[R, ...]
    ended: bool
    error: MeshError | None = None
    latency_s: float = 0.0
    attempts: int = 0
    provenance: tuple[Mapping[str, object], ...] = ()
    call_id: str = ""

    @property
    def response(self) -> R:
        """The one response. Raises the branch's error, and LookupError where there are none or several."""
        if self.error:
            raise self.error
        if len(self.responses) != 1:
            message = f"`{self.tool}/{self.method}` has {len(self.responses)} responses here: see `responses`"
            raise LookupError(message)
        return self.responses[0]


def read_branch(branch: pb.Branch, read: Read[R]) -> Branch[R]:
    """A branch with its answers unpacked; answers that cannot be are its error."""
    ended = branch.HasField("status")
    error = error_from_status(branch.status) if branch.status.code else None
    responses: tuple[R, ...] = ()
    try:
        responses = tuple(read(packed) for packed in branch.responses)
    except (ToolFailed, InvalidCall) as err:
        error = error or err
    if error:
        error.call_id = branch.call_id
    return Branch(
        branch.tool,
        branch.method,
        responses,
        ended=ended,
        error=error,
        latency_s=branch.latency.ToTimedelta().total_seconds(),
        attempts=branch.attempt_count,
        provenance=_provenance(branch.provenance),
        call_id=branch.call_id,
    )


def read_as(message_type: type[R]) -> Read[R]:
    """Reads answers as of this type."""
    name = message_type.DESCRIPTOR.full_name

    def read(packed: any_pb2.Any) -> R:
        if packed.TypeName() != name:
            # The mesh lets no answer through that is not of its method's type: the reader expects another.
            what = f"is `{name}`, and the answer is a `{packed.TypeName()}`"
            raise InvalidCall(f"`response_type` {what}", [Violation("response_type", what)], reason="OTHER_TYPE")
        return _parsed(message_type, packed)

    return read


def read_known(packed: any_pb2.Any) -> Message:
    """Reads an answer as of the type that its stubs, if this process has any, say; else it stays as it is."""
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        return packed
    return _parsed(message_factory.GetMessageClass(found), packed)


def _parsed(message_type: type[R], packed: any_pb2.Any) -> R:
    try:
        return message_type.FromString(packed.value)
    except DecodeError as err:
        raise ToolFailed(f"the answer is no `{packed.TypeName()}`", reason="MALFORMED") from err


def read_merged(summary: pb.Summary, read: Read[R], failed: str = "") -> R:
    """The one message made of the answers. Raises Unavailable, with what failed, if there is none."""
    if not summary.HasField("merged"):
        why = summary.unmerged or "no merge was asked for"
        raise Unavailable(f"nothing was merged: {why}{f' ({failed})' if failed else ''}", reason="NOT_MERGED")
    return read(summary.merged)


def _provenance(text: str) -> tuple[Mapping[str, object], ...]:
    """The facts that a tool gives; what is none of ours is left out, as tools write what they like."""
    try:
        found: object = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, list):
        return ()
    return tuple(cast("Mapping[str, object]", each) for each in cast("list[object]", found) if isinstance(each, dict))
