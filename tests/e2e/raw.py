"""A client below gRPC: one HTTP/2 connection that sends what a gRPC library never would."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events

TIMEOUT_S = 60.0
READ_BYTES = 65536
# The most that one frame of HTTP/2 has, unless the other side takes more.
FRAME_BYTES = 16384
COMPRESSED = 1

Header = tuple[str, str]


@dataclass(slots=True)
class Answer:
    """What came back. fields: headers and trailers together, the later ones last. reset: the stream was cut."""

    fields: list[Header] = field(default_factory=list[Header])
    data: bytes = b""
    reset: bool = False
    ended: bool = False

    def get(self, name: str) -> str:
        """The last field of that name; empty if there is none."""
        return next((value for key, value in reversed(self.fields) if key == name), "")

    @property
    def compressed(self) -> bool:
        """Whether the first message is marked as compressed."""
        return self.data[:1] == bytes([COMPRESSED])

    @property
    def message(self) -> bytes:
        """The first message, decompressed."""
        size = int.from_bytes(self.data[1:5])
        content = self.data[5 : 5 + size]
        return gzip.decompress(content) if self.compressed else content


def frame(message: bytes, *, compress: bool = False) -> bytes:
    """A message as "gRPC over HTTP2" frames it."""
    content = gzip.compress(message) if compress else message
    return bytes([compress]) + len(content).to_bytes(4) + content


class RawConnection:
    """One HTTP/2 connection to a port of this machine; calls one after another."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        """Be used."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hang up."""
        self._socket.close()

    def call(
        self,
        path: str,
        *fields: Header,
        body: bytes = b"",
        content_type: str = "application/grpc",
        method: str = "POST",
        trailers: Sequence[Header] = (),
    ) -> Answer:
        """Send one request with the given fields beside gRPC's own; wait for its end."""
        own: Iterable[Header] = (
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            *((("content-type", content_type),) if content_type else ()),
        )
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, [*own, *fields])
        *first, last = [body[start : start + FRAME_BYTES] for start in range(0, len(body), FRAME_BYTES)] or [b""]
        for part in first:
            self._h2.send_data(stream, part)
        self._h2.send_data(stream, last, end_stream=not trailers)
        if trailers:
            self._h2.send_headers(stream, trailers, end_stream=True)
        self._flush()
        answer = Answer()
        while not (answer.ended or answer.reset):
            self._receive(answer, stream)
        return answer

    def _receive(self, answer: Answer, stream: int) -> None:
        """Take in what came. What is still said of earlier calls is not of this one."""
        try:
            data = self._socket.recv(READ_BYTES)
        except ConnectionResetError:
            # As the end of a connection looks where the other side has not read all that we sent.
            data = b""
        if not data:
            answer.reset = True
            return
        for event in self._h2.receive_data(data):
            match event:
                case (
                    h2.events.ResponseReceived(headers=found, stream_id=of)
                    | h2.events.TrailersReceived(headers=found, stream_id=of)
                ) if of == stream:
                    answer.fields += [(str(key), str(value)) for key, value in found or ()]
                case h2.events.DataReceived(data=content, flow_controlled_length=length, stream_id=of) if of == stream:
                    answer.data += content or b""
                    self._h2.acknowledge_received_data(length or 0, stream)
                case h2.events.StreamEnded(stream_id=of) if of == stream:
                    answer.ended = True
                case h2.events.StreamReset(stream_id=of) if of == stream:
                    answer.reset = True
                case h2.events.ConnectionTerminated():
                    answer.reset = True
                case _:
                    pass
        self._flush()

    def _flush(self) -> None:
        # Of one that was cut, the next read tells.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(self._h2.data_to_send())
