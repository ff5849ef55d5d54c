"""Attacks below requests: frames that break HTTP/2's rules, floods of them, and connections that are none."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.listener.listener import MAX_STREAMS
from tests.hostile.calls import GOOD, Act, Case, End, good
from tests.hostile.connection import FRAME_BYTES, PREFACE, Connection

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, UNKNOWN = 0, 1, 3, 4, 6, 7, 8, 0xEE
END_HEADERS, PADDED = 4, 8
CANCEL = 8
MANY = 2000


def raw(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """A frame, whatever is in it. length: what it says of its payload, if not the truth."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def alone(*parts: Frame | bytes) -> Act:
    """Send these, of no call."""

    def act(connection: Connection, token: str) -> None:  # noqa: ARG001 - as every act
        connection.send(*parts)

    return act


def repeated(part: Frame | bytes, count: int = MANY) -> Act:
    """Send one frame many times over."""
    data = part if isinstance(part, bytes) else part.serialize()
    return alone(*[data] * count)


def before(*parts: Frame | bytes) -> Act:
    """Send these, then a good call."""

    def act(connection: Connection, token: str) -> int:
        connection.send(*parts)
        return connection.request(good(token), GOOD)

    return act


def beside(make: Callable[[int], Sequence[Frame | bytes]]) -> Act:
    """Begin a call; then send what is made of its stream."""

    def act(connection: Connection, token: str) -> int:
        stream = connection.stream()
        connection.send(*connection.headers(stream, good(token)), *make(stream))
        return stream

    return act


def instead(make: Callable[[int, bytes], Sequence[Frame | bytes]]) -> Act:
    """Begin no call, but send what is made of a new stream and the header block of a good call."""

    def act(connection: Connection, token: str) -> int:
        stream = connection.stream()
        connection.send(*make(stream, connection.block(good(token))))
        return stream

    return act


def last(stream: int) -> Frame:
    """The end of a good call."""
    return DataFrame(stream, GOOD, flags=["END_STREAM"])


def begun(stream: int, block: bytes, *flags: str) -> Frame:
    """The header block of a call, whole."""
    return HeadersFrame(stream, block, flags=["END_HEADERS", *flags])


def flood_of_resets(connection: Connection, token: str) -> None:
    """Begin many calls, and take each back at once (CVE-2023-44487)."""
    for _ in range(MANY):
        stream = connection.stream()
        connection.send(*connection.headers(stream, good(token)), RstStreamFrame(stream, CANCEL))


def flood_of_fields(connection: Connection, token: str) -> int:
    """A header block that never ends (CVE-2024-27919)."""
    stream = connection.stream()
    connection.send(HeadersFrame(stream, connection.block(good(token))))
    for number in range(MANY):
        connection.send(ContinuationFrame(stream, connection.block([(f"x-{number}".encode(), b"a" * 50)])))
    return stream


def one_more(connection: Connection, token: str) -> int:
    """As many calls at once as a connection may have, and one more; then end the others."""
    begun = [connection.stream() for _ in range(MAX_STREAMS)]
    for stream in begun:
        connection.send(*connection.headers(stream, good(token)))
    further = connection.request(good(token), GOOD)
    connection.answer(further)
    for stream in begun:
        connection.send(last(stream))
    for stream in begun:
        connection.answer(stream)
    return further


def bomb(connection: Connection, token: str) -> int:
    """Few bytes that stand for a megabyte of fields: an entry of the table, named over and over."""
    stream = connection.stream()
    block = connection.block([*good(token), (b"x-large", b"a" * 3000)])
    # The newest entry of the table has the first number after the static ones.
    connection.send(begun(stream, block + b"\xbe" * 400), last(stream))
    return stream


def answered_bit_by_bit(connection: Connection, token: str) -> int:
    """Let an answer come one byte at a time."""
    stream = connection.request(good(token), GOOD)
    for _ in range(64):
        connection.send(WindowUpdateFrame(stream, 1))
    return stream


def left_standing(connection: Connection, token: str) -> None:
    """Ask, and never let the answer come."""
    connection.request(good(token), GOOD)


def twice(connection: Connection, token: str) -> None:
    """Begin another call on the stream of one that has ended."""
    stream = connection.request(good(token), GOOD)
    connection.answer(stream)
    connection.send(*connection.headers(stream, good(token)), last(stream))


def backwards(connection: Connection, token: str) -> None:
    """Begin a call with a smaller number than the one before."""
    connection.send(*connection.headers(9, good(token)), last(9))
    connection.answer(9)
    connection.request(good(token), GOOD)


def good_bye(connection: Connection, token: str) -> None:
    """Say that no call will follow, then make one."""
    connection.send(GoAwayFrame(0, 0, 0))
    connection.request(good(token), GOOD)


HEADER_BLOCKS = (
    Case(
        "padding",
        instead(lambda s, b: [HeadersFrame(s, b, pad_length=200, flags=["END_HEADERS", "PADDED"]), last(s)]),
        End.ANSWERED,
    ),
    Case(
        "padded data",
        beside(lambda s: [DataFrame(s, GOOD, pad_length=255, flags=["PADDED", "END_STREAM"])]),
        End.ANSWERED,
    ),
    Case(
        "nothing but padding",
        beside(lambda s: [raw(DATA, b"\xff" + bytes(255), flags=PADDED, stream=s), last(s)]),
        End.ANSWERED,
    ),
    Case("more padding than frame", beside(lambda s: [raw(DATA, b"\xff" + GOOD, flags=PADDED, stream=s)]), End.GONE),
    Case(
        "a block in single bytes",
        instead(
            lambda s, b: [
                HeadersFrame(s, b[:1]),
                *(ContinuationFrame(s, b[i : i + 1]) for i in range(1, len(b))),
                ContinuationFrame(s, flags=["END_HEADERS"]),
                last(s),
            ]
        ),
        End.ANSWERED,
    ),
    Case(
        "another frame within a block", instead(lambda s, b: [HeadersFrame(s, b), PingFrame(0, b"whatever")]), End.GONE
    ),
    Case(
        "another stream within a block",
        instead(lambda s, b: [HeadersFrame(s, b), ContinuationFrame(s + 2, b)]),
        End.GONE,
    ),
    Case("a continuation of nothing", instead(lambda s, b: [ContinuationFrame(s, b, flags=["END_HEADERS"])]), End.GONE),
    Case("a block that is no HPACK", instead(lambda s, _: [begun(s, b"\xff" * 64)]), End.GONE),
    Case("a block that names no entry", instead(lambda s, b: [begun(s, b + b"\xff\xff\x07")]), End.GONE),
    Case("a block that ends within a name", instead(lambda s, b: [begun(s, b + b"\x40\x7fabc")]), End.GONE),
    Case("a broken Huffman text", instead(lambda s, b: [begun(s, b + b"\x40\x01x\x84\xff\xff\xff\xff")]), End.GONE),
    Case("a table larger than allowed", instead(lambda s, b: [begun(s, b"\x3f\xe1\xff\xff\x7f" + b)]), End.GONE),
    Case("a bomb of fields", bomb, End.RESET),
    Case("a block on stream 0", instead(lambda _, b: [raw(HEADERS, b, flags=END_HEADERS)]), End.GONE),
    Case("an even stream", instead(lambda _, b: [begun(2, b), last(2)]), End.GONE),
    Case("a stream twice", twice, End.NOTHING),
    Case("a stream after a later one", backwards, End.NOTHING),
    Case(
        "a priority of itself",
        instead(
            lambda s, b: [HeadersFrame(s, b, depends_on=s, stream_weight=1, flags=["PRIORITY", "END_HEADERS"]), last(s)]
        ),
        End.GONE,
    ),
)
FRAMES = (
    Case("data on stream 0", alone(raw(DATA, GOOD)), End.GONE),
    Case("data before a call", beside(lambda s: [DataFrame(s + 2, GOOD)]), End.GONE),
    Case("data after the end", beside(lambda s: [last(s), last(s)]), End.GONE),
    Case("a reset of no call", alone(RstStreamFrame(7, CANCEL)), End.GONE),
    Case("a reset of stream 0", alone(raw(RESET, bytes(4))), End.GONE),
    Case("a reset of the wrong length", beside(lambda s: [raw(RESET, bytes(3), stream=s)]), End.GONE),
    Case("a push", beside(lambda s: [PushPromiseFrame(s, 2, flags=["END_HEADERS"])]), End.GONE),
    Case("a frame too large", beside(lambda s: [raw(DATA, bytes(FRAME_BYTES + 1), stream=s)]), End.GONE),
    Case("a frame of 16 MiB declared", beside(lambda s: [raw(DATA, b"", stream=s, length=0xFFFFFF)]), End.GONE),
    Case("a frame nobody knows", before(raw(UNKNOWN, b"whatever")), End.ANSWERED),
    Case("a window of nothing more", before(raw(WINDOW_UPDATE, bytes(4))), End.GONE),
    Case("a stream's window of nothing more", beside(lambda s: [raw(WINDOW_UPDATE, bytes(4), stream=s)]), End.GONE),
    Case("a window beyond 2 GiB", before(WindowUpdateFrame(0, 2**31 - 1)), End.GONE),
    Case("a stream's window beyond 2 GiB", beside(lambda s: [WindowUpdateFrame(s, 2**31 - 1)]), End.GONE),
    Case("a window of the wrong length", alone(raw(WINDOW_UPDATE, bytes(3))), End.GONE),
    Case("a ping of the wrong length", alone(raw(PING, bytes(7))), End.GONE),
    Case("a ping on a stream", alone(raw(PING, bytes(8), stream=1)), End.GONE),
    Case("settings of the wrong length", alone(raw(SETTINGS, bytes(5))), End.GONE),
    Case("settings on a stream", alone(raw(SETTINGS, b"", stream=1)), End.GONE),
    Case("an acknowledgement with settings", alone(raw(SETTINGS, bytes(6), flags=1)), End.GONE),
    Case("a frame size below the least", alone(raw(SETTINGS, struct.pack("!HI", 5, 1))), End.GONE),
    Case("a first window beyond 2 GiB", alone(raw(SETTINGS, struct.pack("!HI", 4, 2**31))), End.GONE),
    Case("a push setting of 2", alone(raw(SETTINGS, struct.pack("!HI", 2, 2))), End.GONE),
    Case("a setting nobody knows", before(raw(SETTINGS, struct.pack("!HI", 0xEEEE, 1))), End.ANSWERED),
    Case("a table of nothing", before(raw(SETTINGS, struct.pack("!HI", 1, 0))), End.ANSWERED),
    Case("a good-bye, then a call", good_bye, End.NOTHING),
    Case("a good-bye on a stream", alone(raw(GOAWAY, bytes(8), stream=1)), End.GONE),
    Case("two prefaces", alone(PREFACE), End.GONE),
)
FLOODS = (
    Case("a flood of resets", flood_of_resets, End.GONE),
    Case("a flood of fields", flood_of_fields, End.GONE),
    Case("a flood of pings", repeated(PingFrame(0, b"whatever"), 20_000), End.GONE),
    Case("a flood of settings", repeated(SettingsFrame(), 20_000), End.GONE),
    Case("a flood of empty data", beside(lambda s: [DataFrame(s)] * MANY), End.GONE),
    Case("a flood of windows", beside(lambda s: [WindowUpdateFrame(s, 1)] * MANY), End.GONE),
    Case("a flood of priorities", repeated(PriorityFrame(3, depends_on=5, stream_weight=9), 20_000), End.GONE),
    Case("priorities in a loop", alone(*(PriorityFrame(n, depends_on=n % 5 + 1) for n in (1, 3, 5))), End.NOTHING),
    Case("a flood of unknown frames", repeated(raw(UNKNOWN, b""), 20_000), End.NOTHING),
    Case("one call more than a connection may have", one_more, End.RESET),
    Case("answers a byte at a time", answered_bit_by_bit, End.GONE, window=1),
    Case("an answer that may not come", left_standing, End.NOTHING, window=0),
)
CONNECTIONS = tuple(
    Case(name, alone(data), end, preface=False)
    for name, data, end in (
        ("HTTP/1.1", b"POST /acme.testing.v1.Echo/Unary HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", End.GONE),
        (
            "HTTP/1.1 that asks for h2c",
            b"GET / HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAM\r\n\r\n",
            End.GONE,
        ),
        ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", End.GONE),
        ("a TLS greeting", bytes.fromhex("160301020001000000") + bytes(507), End.GONE),
        ("a preface with a wrong letter", PREFACE.replace(b"SM", b"SN"), End.GONE),
        ("a preface in small letters", PREFACE.lower(), End.GONE),
        ("zeros", bytes(4096), End.GONE),
        ("a PROXY line", b"PROXY TCP4 8.8.8.8 8.8.8.8 1 1\r\n" + PREFACE, End.GONE),
        ("a preface without settings", PREFACE + PingFrame(0, b"whatever").serialize(), End.GONE),
        ("half a preface", PREFACE[:10], End.NOTHING),
        ("silence", b"", End.NOTHING),
    )
)
ALL_FRAMES = (*HEADER_BLOCKS, *FRAMES, *FLOODS, *CONNECTIONS)
