"""How an error travels: MeshError to google.rpc.Status and back, in gRPC's trailing metadata."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed

from llmesh.caller import CALL_ID_KEY, read_metadata
from llmesh.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    FieldsError,
    InvalidCall,
    MeshError,
    NotFound,
    OverQuota,
    ResourceError,
    RetryLaterError,
    ToolFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)

DOMAIN = "llmesh"
# gRPC's own key for a serialised google.rpc.Status.
STATUS_KEY = "grpc-status-details-bin"
# INVARIANT: a refusal with its details and provenance fits gRPC's 8 KiB of metadata,
# counting base64 (4/3) and percent-encoding (3).
_MESSAGE_MAX_BYTES = 512
_DETAILS_MAX_BYTES = 1536
_FACTS_MAX_BYTES = 1024
_FACT_MAX_BYTES = 256

_KINDS: Mapping[grpc.StatusCode, type[MeshError]] = {
    **{
        kind.default_code: kind
        for kind in (
            InvalidCall,
            Unauthenticated,
            Denied,
            NotFound,
            AlreadyExists,
            FailedPrecondition,
            Conflict,
            Unavailable,
            OverQuota,
            DeadlineExceeded,
            Cancelled,
            Unimplemented,
            ToolFailed,
        )
    },
    grpc.StatusCode.OUT_OF_RANGE: InvalidCall,
    grpc.StatusCode.DATA_LOSS: ToolFailed,
}
CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_from_error(error: MeshError) -> status_pb2.Status:
    """What is sent for the error: ErrorInfo first, then the kind's details, then its own.

    The message is cut so that all fits gRPC's metadata. Of a BadRequest the first
    fields stay; any other detail that doesn't fit is left out whole.
    """
    status = status_pb2.Status(code=error.code.value[0], message=_cut(error.message))
    room = _DETAILS_MAX_BYTES
    for detail in (_error_info(error), *error.own_details(), *error.details):
        if isinstance(detail, error_details_pb2.BadRequest):
            while detail.ByteSize() > room and detail.field_violations:
                detail.field_violations.pop()
        packed = any_pb2.Any()
        if isinstance(detail, any_pb2.Any):
            packed.CopyFrom(detail)
        else:
            packed.Pack(detail)
        if packed.ByteSize() <= room:
            status.details.append(packed)
            room -= packed.ByteSize()
    return status


def error_from_rpc(error: grpc.aio.AioRpcError) -> MeshError:
    """The kind that a failed call's code and details name, with the call's id."""
    status = status_from_rpc(error)
    found = error_from_status(status)
    metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    found.call_id = read_metadata(metadata).get(CALL_ID_KEY, "")
    return found


def status_from_rpc(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The Status that a failed call carries; of one that carries none, its code and message."""
    found = (value for key, value in error.trailing_metadata() or () if key == STATUS_KEY and isinstance(value, bytes))
    return status_from_parts(error.code().value[0], error.details() or "", next(found, b""))


def status_from_parts(code: int, message: str, details: bytes) -> status_pb2.Status:
    """The same of a call's code, its message, and what it has under STATUS_KEY."""
    plain = status_pb2.Status(code=code, message=message)
    try:
        status = status_pb2.Status.FromString(details)
    except DecodeError:
        return plain
    # A foreign server's details may contradict its code; then only the code counts.
    return status if status.code == code else plain


def error_from_status(status: status_pb2.Status) -> MeshError:
    """The kind that a Status names. Details that no kind reads stay packed, in `details`."""
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    error = _KINDS.get(code, MeshError)(status.message)
    error.code = code
    others: list[Message] = []
    for packed in status.details:
        try:
            known = _read_detail(error, packed)
        except DecodeError:
            known = False
        if not known:
            others.append(packed)
    error.details = tuple(others)
    return error


def _read_detail(error: MeshError, packed: any_pb2.Any) -> bool:
    """Set what the detail says on the error; False if it says nothing to this kind."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad_request, resource = error_details_pb2.BadRequest(), error_details_pb2.ResourceInfo()
    quota = error_details_pb2.QuotaFailure()
    if packed.Unpack(info):
        error.reason, error.metadata = info.reason, dict(info.metadata)
    elif isinstance(error, FieldsError) and packed.Unpack(bad_request):
        error.violations = tuple(
            Violation(found.field, found.description, found.reason) for found in bad_request.field_violations
        )
    elif isinstance(error, ResourceError) and packed.Unpack(resource):
        error.resource = (resource.resource_type, resource.resource_name)
    elif isinstance(error, RetryLaterError) and packed.Unpack(retry):
        error.retry_after_s = retry.retry_delay.ToMicroseconds() / 1_000_000
    elif isinstance(error, OverQuota) and packed.Unpack(quota):
        error.quota = next((found.subject for found in quota.violations), "")
    else:
        return False
    return True


def _error_info(error: MeshError) -> error_details_pb2.ErrorInfo:
    """Reason and facts; what would crowd out the rest is cut or left out, the reason never."""
    info = error_details_pb2.ErrorInfo(reason=_cut(error.reason, 64), domain=DOMAIN)
    for key, value in error.metadata.items():
        kept = error_details_pb2.ErrorInfo(metadata={key: _cut(value, _FACT_MAX_BYTES)})
        if info.ByteSize() + kept.ByteSize() <= _FACTS_MAX_BYTES:
            info.MergeFrom(kept)
    return info


def _cut(text: str, limit_bytes: int = _MESSAGE_MAX_BYTES) -> str:
    """At most so many bytes of UTF-8; whole characters, lone surrogates replaced."""
    data = text.encode(errors="replace")
    if len(data) <= limit_bytes:
        return data.decode()
    return data[: limit_bytes - len("...")].decode(errors="ignore") + "..."
