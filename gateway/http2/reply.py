"""What comes back of one call, put together: its answer, or why there is none (gRPC over HTTP/2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from grpc import StatusCode

from gateway.http2.fields import Fields
from gateway.http2.frames import Reason

__all__ = ["Answer", "Reply", "ReplyError", "code_of", "framed"]

_PREFIX = Struct(">BL")
_NONE: Fields = MappingProxyType({})
_UNKNOWN = StatusCode.UNKNOWN
_CODES: Mapping[bytes, int] = {str(code.value[0]).encode(): code.value[0] for code in StatusCode}
# Of answers that are no gRPC's: what the protocol has them read as.
_BY_HTTP = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
# Of streams that the other side breaks off; all else is INTERNAL.
_BY_REASON: Mapping[int, StatusCode] = {
    Reason.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    Reason.CANCEL: StatusCode.CANCELLED,
    Reason.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    Reason.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


class Answer(NamedTuple):
    """How a call ended.

    code: of gRPC. response: there if that is 0 and one was given. head, trailers: the same where nothing else came.
    """

    code: int
    message: str
    response: bytes | None = None
    head: Fields = _NONE
    trailers: Fields = _NONE


class ReplyError(Exception):
    """What came of a call cannot be its answer, and nothing more of it is wanted."""

    def __init__(self, code: StatusCode, words: str) -> None:
        """How the call is told to have ended."""
        super().__init__(words)
        self.code = code


def code_of(reason: int) -> StatusCode:
    """How a call ends whose stream the other side broke off for a reason."""
    return _BY_REASON.get(reason, StatusCode.INTERNAL)


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it, uncompressed."""
    return _PREFIX.pack(0, len(message)) + message


@dataclass(slots=True)
class Reply:
    """What has come of a call. limit_bytes: of its response."""

    limit_bytes: int
    _head: Fields | None = None
    _size: int | None = None
    _body: bytearray = field(default_factory=bytearray)

    @property
    def has_begun(self) -> bool:
        """Whether anything has come."""
        return self._head is not None

    @property
    def response_bytes(self) -> int:
        """What has come of the response itself."""
        return max(0, len(self._body) - _PREFIX.size)

    def fields(self, found: Fields, *, last: bool) -> Answer | None:
        """Header fields have come; the answer, if there is no more to come. Raises ReplyError."""
        if self._head is not None:
            if not last:
                raise ReplyError(StatusCode.INTERNAL, "headers in the middle of an answer")
            return self._ended(self._head, found)
        if found.get(b":status", b"").startswith(b"1") and not last:
            return None
        self._head = found
        if last:
            return self._ended(found, found)
        if found.get(b":status") != b"200" or not found.get(b"content-type", b"").startswith(b"application/grpc"):
            raise ReplyError(_code_of(found), _no_grpc(found))
        return None

    def data(self, piece: bytes, *, last: bool) -> Answer | None:
        """A piece of the body has come; the answer, if there is no more to come. Raises ReplyError."""
        if self._head is None:
            raise ReplyError(StatusCode.INTERNAL, "an answer without headers")
        # Not kept apart: each piece would cost more than a small one holds.
        self._body += piece
        if self._size is None and len(self._body) >= _PREFIX.size:
            self._size = self._begin()
        if self._size is not None and self.response_bytes > self._size:
            raise ReplyError(StatusCode.INTERNAL, "more than one response")
        return self._ended(self._head, _NONE) if last else None

    def failed(self, code: StatusCode, words: str) -> Answer:
        """How the call ended, of which no more will come."""
        return Answer(code.value[0], words, None, self._head or _NONE)

    def _begin(self) -> int:
        """The size of the response, whose prefix has come."""
        compressed, size = _PREFIX.unpack_from(self._body)
        if compressed:
            raise ReplyError(StatusCode.INTERNAL, "a compressed response, though none is taken")
        if size > self.limit_bytes:
            raise ReplyError(
                StatusCode.RESOURCE_EXHAUSTED, f"a response of {size} bytes: the most is {self.limit_bytes}"
            )
        return size

    def _ended(self, head: Fields, trailers: Fields) -> Answer:
        stated = trailers.get(b"grpc-status")
        if stated is None:
            return Answer(_code_of(head).value[0], _no_grpc(head), None, head, trailers)
        code = _CODES.get(stated, _UNKNOWN.value[0])
        if code:
            message = unquote_to_bytes(trailers.get(b"grpc-message", b"")).decode(errors="replace")
            return Answer(code, message, None, head, trailers)
        if not self._body:
            return Answer(0, "", None, head, trailers)
        if self._size is None or self.response_bytes < self._size:
            return Answer(StatusCode.INTERNAL.value[0], "OK with half a response", None, head, trailers)
        return Answer(0, "", bytes(memoryview(self._body)[_PREFIX.size :]), head, trailers)


def _code_of(head: Fields) -> StatusCode:
    status = head.get(b":status", b"")
    return _BY_HTTP.get(int(status), _UNKNOWN) if status.isdigit() else _UNKNOWN


def _no_grpc(head: Fields) -> str:
    kind, status = (head.get(name, b"").decode("ascii", "replace")[:64] for name in (b"content-type", b":status"))
    return f"an answer that is no gRPC's: HTTP {status}, `{kind}`"
