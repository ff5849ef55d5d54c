"""What can go wrong with a call: one tree for servers and clients.

A servicer raises a kind and the edge sends it as a google.rpc.Status; a
client meets the same kind again. "Retry" says whether the same call can
succeed when it is made again.

    MeshError               any failure of a call
    +- InvalidCall          no retry: the request is wrong; says which fields
    +- Unauthenticated      no retry: sign in first
    +- Denied               no retry: a rule says no; says which
    +- NotFound             no retry: the thing asked for isn't there
    +- AlreadyExists        no retry: the thing to make is there
    +- FailedPrecondition   no retry: something else must be done first
    +- Conflict             retry from the start: read again, then call again
    +- OverQuota            retry after a delay
    +- Unavailable          retry after a delay
    +- DeadlineExceeded     retry with more time, if the method is idempotent
    +- Cancelled            no retry: the caller gave up
    +- Unimplemented        no retry: no such method
    `- ToolFailed           no retry: a fault of the tool
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "Denied",
    "FailedPrecondition",
    "FieldsError",
    "InvalidCall",
    "MeshError",
    "NotFound",
    "OverQuota",
    "ResourceError",
    "RetryLaterError",
    "ToolFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its contract.

    field: its path in the message, "passages[3].text"; empty for the whole
    of it. rule: id of the rule broken, "string.min_len", or empty.
    """

    field: str
    description: str
    rule: str = ""


class MeshError(Exception):
    """A call failed, and why.

    code: the gRPC code. reason: UPPER_SNAKE, stable, for programs. message:
    for people; it reaches the caller. metadata: facts beside the reason.
    details: further google.rpc details; they reach the caller.
    call_id: on the client, the id of the failed call; else empty.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        """Say what happened, in lower case and without a full stop."""
        super().__init__(message)
        self.message = message
        self.code = self.default_code
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.details = tuple(details)
        self.call_id = ""

    def __str__(self) -> str:
        """The message with code, reason and, on the client, the call's id."""
        facts = [self.code.name, *([self.reason] if self.reason not in {"", self.code.name} else [])]
        if self.call_id:
            facts.append(f"call {self.call_id}")
        return f"{self.message or 'no message'} ({', '.join(facts)})"

    def own_details(self) -> Iterable[Message]:
        """The details that the kind itself carries."""
        return ()


class FieldsError(MeshError):
    """A failure that names fields: InvalidCall, of the request, or FailedPrecondition, of what was made for it."""

    def __init__(
        self,
        message: str,
        violations: Sequence[Violation] = (),
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong, and with which fields."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)

    def own_details(self) -> Iterable[Message]:
        """A BadRequest that names each field."""
        if self.violations:
            yield error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=found.field, description=found.description, reason=found.rule
                    )
                    for found in self.violations
                ]
            )


class InvalidCall(FieldsError):
    """The request breaks its contract. No retry helps."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_CALL"


class Unauthenticated(MeshError):
    """Nobody is signed in, or the token isn't accepted. No retry helps."""

    default_code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class Denied(MeshError):
    """A rule says no. No retry helps. rule: its id; empty where no rule permits."""

    default_code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "DENIED"

    def __init__(
        self, message: str, *, rule: str = "", reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        """Say why, and by which rule."""
        super().__init__(message, reason=reason, metadata={**(metadata or {}), **({"rule": rule} if rule else {})})

    @property
    def rule(self) -> str:
        """The id of the rule that decided."""
        return self.metadata.get("rule", "")

    def __str__(self) -> str:
        """The message with code, rule and the call's id."""
        shown = super().__str__()
        return f"{shown.removesuffix(')')}, rule {self.rule})" if self.rule else shown


class ResourceError(MeshError):
    """A failure that is about one thing: NotFound or AlreadyExists."""

    def __init__(
        self,
        message: str,
        *,
        resource: tuple[str, str] | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Say what it is about; resource: (type, name), e.g. ("ticket", "T-17"), None if not one thing."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.resource = resource

    def own_details(self) -> Iterable[Message]:
        """A ResourceInfo."""
        if self.resource:
            kind, name = self.resource
            yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name)


class NotFound(ResourceError):
    """The thing asked for isn't there. No retry helps."""

    default_code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(ResourceError):
    """The thing to make is there already. No retry helps."""

    default_code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(FieldsError):
    """Something else must be done first. No retry helps until then."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class Conflict(MeshError):
    """Another call changed the same thing. Read it again, then a retry can help."""

    default_code = grpc.StatusCode.ABORTED
    default_reason = "CONFLICT"


class RetryLaterError(MeshError):
    """A failure that passes: Unavailable or OverQuota."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Say why, and in how many seconds a retry can help; None if unknown."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s

    def own_details(self) -> Iterable[Message]:
        """A RetryInfo."""
        if self.retry_after_s is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromMicroseconds(round(self.retry_after_s * 1_000_000))
            yield info


class Unavailable(RetryLaterError):
    """What the call needs is away for now. A retry helps after retry_after_s."""

    default_code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class OverQuota(RetryLaterError):
    """A quota is spent. A retry helps after retry_after_s. quota: which one, for people."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "OVER_QUOTA"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        quota: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Say which quota, and when there is more."""
        super().__init__(message, retry_after_s=retry_after_s, reason=reason, metadata=metadata)
        self.quota = quota

    def own_details(self) -> Iterable[Message]:
        """A RetryInfo and a QuotaFailure."""
        yield from super().own_details()
        if self.quota:
            failure = error_details_pb2.QuotaFailure.Violation(subject=self.quota, description=self.message[:256])
            yield error_details_pb2.QuotaFailure(violations=[failure])


class DeadlineExceeded(MeshError):
    """Time ran out. A retry with more time can help, if the method is idempotent."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(MeshError):
    """The caller gave up, or the connection ended. No retry: nobody waits."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"


class Unimplemented(MeshError):
    """There is no such method. No retry helps."""

    default_code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class ToolFailed(MeshError):
    """A fault of the tool, said in words that may reach the caller. No retry helps."""

    default_code = grpc.StatusCode.INTERNAL
    default_reason = "TOOL_FAILED"
