"""The frames of HTTP/2, and what is in those of a fixed form (RFC 9113, 4 and 6). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_MAX_BYTES",
    "WINDOW_BYTES",
    "Frames",
    "Kind",
    "PeerError",
    "Reason",
    "Setting",
    "content",
    "frame",
    "head_frames",
    "number",
    "numbered",
    "settings",
    "settings_of",
    "widened",
]

# The most that either side may send in a frame, and ahead of what is read, unless the other says otherwise.
FRAME_MAX_BYTES = 1 << 14
WINDOW_BYTES = (1 << 16) - 1
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20
# The highest bit of a number of 32 is reserved.
_NUMBER = 0x7FFF_FFFF

_HEAD = Struct(">BHBBL")
_U32 = Struct(">L")
_SETTING = Struct(">HL")


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Reason(IntEnum):
    """Why a stream or a connection is ended: the error codes of RFC 9113, 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12


class Setting(IntEnum):
    """What a side may ask of the other."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_HEADER_LIST_SIZE = 6


class PeerError(Exception):
    """What the other side did that ends the connection."""

    def __init__(self, reason: Reason, words: str) -> None:
        """words: what it was."""
        super().__init__(words)
        self.reason = reason


class Frames:
    """What comes, cut into frames."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._rest = b""

    def of(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of the frames that are whole with this data. Raises PeerError.

        They are to be taken before there is more data.
        """
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 16 | low
            if size > FRAME_MAX_BYTES:
                raise PeerError(Reason.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            begins = at + _HEAD.size
            if end - begins < size:
                break
            at = begins + size
            yield kind, flags, stream & _NUMBER, data[begins:at]
        self._rest = data[at:]


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame, as it is sent."""
    return _HEAD.pack(0, len(payload), kind, flags, stream) + payload


def head_frames(stream: int, block: bytes) -> bytes:
    """The frames of a request's header block; its body is still to come."""
    if len(block) <= FRAME_MAX_BYTES:
        return frame(Kind.HEADERS, END_HEADERS, stream, block)
    pieces = [block[at : at + FRAME_MAX_BYTES] for at in range(0, len(block), FRAME_MAX_BYTES)]
    last = len(pieces) - 1
    return b"".join(
        frame(Kind.CONTINUATION if at else Kind.HEADERS, END_HEADERS if at == last else 0, stream, piece)
        for at, piece in enumerate(pieces)
    )


def content(kind: int, flags: int, payload: bytes) -> bytes:
    """What a frame of DATA or HEADERS holds, without padding and priority. Raises PeerError."""
    if not flags & (PADDED | PRIORITISED):
        return payload
    begins, ends = 0, len(payload)
    if flags & PADDED:
        begins, ends = 1, ends - (payload[0] if payload else ends)
    if kind == Kind.HEADERS and flags & PRIORITISED:
        begins += 5
    if begins > ends:
        raise PeerError(Reason.PROTOCOL_ERROR, "more padding than there is in the frame")
    return payload[begins:ends]


def numbered(kind: Kind, stream: int, value: int) -> bytes:
    """A frame that holds one number: WINDOW_UPDATE, RST_STREAM."""
    return frame(kind, 0, stream, _U32.pack(value))


def number(payload: bytes, *, more: bool = False) -> int:
    """The number in a frame. more: it may hold more after that. Raises PeerError."""
    if len(payload) < _U32.size or (len(payload) > _U32.size and not more):
        raise PeerError(Reason.FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes, which holds a number of 4")
    return _U32.unpack_from(payload)[0]


def settings(stated: Iterable[tuple[Setting, int]]) -> bytes:
    """A frame of SETTINGS."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in stated))


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """What a frame of SETTINGS states, in its order. Raises PeerError."""
    if len(payload) % _SETTING.size:
        raise PeerError(Reason.FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def widened(window: int, more: int) -> int:
    """How much the other side takes, once it takes so much more, or less. Raises PeerError."""
    if window + more > _NUMBER:
        raise PeerError(Reason.FLOW_CONTROL_ERROR, "a window of more than 2 GiB")
    return window + more
