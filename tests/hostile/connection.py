"""One connection at the level of HTTP/2 frames, to send what no library would, and to see how it is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TIMEOUT_S = 60.0
HEADER_BYTES = 9
# The largest payload that a peer takes unless it says otherwise.
FRAME_BYTES = 16384
# How large the table of header fields is that a peer keeps unless it says otherwise (RFC 7541, HTTP/2's settings).
TABLE_BYTES = 4096

Header = tuple[bytes, bytes]


def grpc_frame(message: bytes) -> bytes:
    """A message as "gRPC over HTTP2" frames it."""
    return b"\0" + len(message).to_bytes(4) + message


@dataclass(slots=True)
class Answer:
    """What came back on a stream. fields: headers and trailers together. reset: the error code, if it was cut."""

    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    def get(self, name: str) -> str:
        """The last field of that name; empty if there is none."""
        return next((value for key, value in reversed(self.fields) if key == name), "")


class Connection:
    """A connection to a port of this machine. gone: whether the other side has ended it."""

    def __init__(self, port: int, *, preface: bool = True, window: int | None = None) -> None:
        """Connect, and say what a client says first unless preface is False. window: the one that each answer has."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._read = b""
        self._next = 1
        self._pong = False
        self.answers: dict[int, Answer] = {}
        self.gone = False
        if preface:
            settings = {} if window is None else {SettingsFrame.INITIAL_WINDOW_SIZE: window}
            self.send(PREFACE, SettingsFrame(settings=settings))

    def __enter__(self) -> Self:
        """Be used."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hang up."""
        self._socket.close()

    def stream(self) -> int:
        """The number of a new stream."""
        self._next += 2
        return self._next - 2

    def block(self, fields: Iterable[Header]) -> bytes:
        """A header block, whatever is in it; to be sent on this connection before the next one is made."""
        return self._encoder.encode(fields, huffman=False)

    def send(self, *parts: Frame | bytes) -> None:
        """Send frames and bytes. A connection that is cut meanwhile is gone."""
        data = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.gone = True

    def request(self, fields: Sequence[Header], body: bytes = b"", *, trailers: Sequence[Header] = ()) -> int:
        """Send one whole request; the number of its stream."""
        stream = self.stream()
        self.send(*self.headers(stream, fields), DataFrame(stream, body, flags=[] if trailers else ["END_STREAM"]))
        if trailers:
            self.send(*self.headers(stream, trailers, end=True))
        return stream

    def headers(self, stream: int, fields: Iterable[Header], *, end: bool = False) -> list[Frame]:
        """The frames of a header block. end: whether nothing follows."""
        block = self.block(fields)
        parts = [block[start : start + FRAME_BYTES] for start in range(0, len(block), FRAME_BYTES)] or [b""]
        first = HeadersFrame(stream, parts[0], flags=["END_STREAM"] if end else [])
        frames: list[Frame] = [first, *(ContinuationFrame(stream, part) for part in parts[1:])]
        frames[-1].flags.add("END_HEADERS")
        return frames

    def answer(self, stream: int) -> Answer:
        """What the stream is answered with, once it has ended or the connection is gone."""
        answer = self.answers.setdefault(stream, Answer())
        while not (answer.ended or answer.reset is not None or self.gone):
            self._receive()
        return answer

    def acknowledged(self) -> bool:
        """Whether all that was sent has been read: a ping comes back. False if the connection is gone."""
        self._pong = False
        self.send(PingFrame(0, b"whatever"))
        while not (self._pong or self.gone):
            self._receive()
        return not self.gone

    def wait_gone(self) -> None:
        """Return once the other side has ended the connection."""
        while not self.gone:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone = True
            return
        self._read += data
        while len(self._read) >= HEADER_BYTES and not self.gone:
            frame, length = Frame.parse_frame_header(memoryview(self._read[:HEADER_BYTES]))
            if len(self._read) < HEADER_BYTES + length:
                return
            frame.parse_body(memoryview(self._read[HEADER_BYTES : HEADER_BYTES + length]))
            self._read = self._read[HEADER_BYTES + length :]
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        answer = self.answers.setdefault(frame.stream_id, Answer())
        match frame:
            case HeadersFrame():
                answer.fields += [
                    (_text(key), _text(value)) for key, value in self._decoder.decode(frame.data, raw=True)
                ]
            case DataFrame():
                answer.data += frame.data
            case RstStreamFrame():
                answer.reset = frame.error_code
            case GoAwayFrame():
                self.gone = True
            case PingFrame() if "ACK" in frame.flags:
                self._pong = True
            case SettingsFrame() if "ACK" not in frame.flags:
                self.send(SettingsFrame(flags=["ACK"]))
                self._encoder.header_table_size = frame.settings.get(SettingsFrame.HEADER_TABLE_SIZE, TABLE_BYTES)
            case _:
                pass
        answer.ended |= "END_STREAM" in frame.flags


def _text(value: bytes) -> str:
    return value.decode("latin-1")
