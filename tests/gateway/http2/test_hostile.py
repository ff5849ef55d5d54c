"""Servers that attack: each is cut off, its calls end, and the next call goes by another connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from hpack import Decoder, Encoder, HPACKError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.http2.call import Call
from gateway.http2.connection import Connection
from gateway.http2.fields import FIELDS_MAX_BYTES, block_of, read
from gateway.http2.frames import Frames, PeerError, Reason
from gateway.http2.reply import Answer, Reply, framed
from tests.eventually import WITHIN_S
from tests.gateway.http2.peer import HEAD, Peer, asking, end_of, without_table

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
R = Reason


def raw(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def bomb() -> bytes:
    """A block of a few KiB that names a field of the table that everybody has again and again."""
    return b"\x90" * 3000


def endless(_: Peer) -> list[Frame]:
    pieces: list[Frame] = [ContinuationFrame(1, b"\x00\x01a\x7f\x00" + b"a" * 127) for _ in range(1200)]
    return [HeadersFrame(1, b"\x88"), *pieces]


Attack = Callable[[Peer], "list[Frame | bytes] | list[Frame] | list[bytes]"]

ATTACKS: dict[str, tuple[Attack, Reason]] = {
    "data of no stream": (lambda _: [DataFrame(1).serialize()[:5] + bytes(4)], R.PROTOCOL_ERROR),
    "data of a stream that was never begun": (lambda _: [DataFrame(99, b"x")], R.PROTOCOL_ERROR),
    "headers of a stream of its own": (lambda peer: [peer.head(2)], R.PROTOCOL_ERROR),
    "a reset of a stream that was never begun": (lambda _: [RstStreamFrame(99)], R.PROTOCOL_ERROR),
    "a push": (lambda _: [PushPromiseFrame(1, 2, b"\x88", flags=("END_HEADERS",))], R.PROTOCOL_ERROR),
    "a frame that is too large": (lambda _: [raw(0, bytes((1 << 14) + 1), stream=1)], R.FRAME_SIZE_ERROR),
    "more padding than frame": (lambda _: [raw(0, b"\x09abc", flags=8, stream=1)], R.PROTOCOL_ERROR),
    "padding of an empty frame": (lambda _: [raw(0, flags=8, stream=1)], R.PROTOCOL_ERROR),
    "a continuation of nothing": (lambda _: [ContinuationFrame(1, b"\x88")], R.PROTOCOL_ERROR),
    "a continuation of another": (lambda _: [HeadersFrame(1, b"\x88"), ContinuationFrame(3, b"")], R.PROTOCOL_ERROR),
    "a frame amid header fields": (lambda _: [HeadersFrame(1, b"\x88"), PingFrame()], R.PROTOCOL_ERROR),
    "empty continuations": (lambda _: [HeadersFrame(1, b"\x88"), ContinuationFrame(1)], R.ENHANCE_YOUR_CALM),
    "header fields without an end": (endless, R.ENHANCE_YOUR_CALM),
    "a field that is in no table": (
        lambda _: [HeadersFrame(1, b"\xfe", flags=("END_HEADERS",))],
        R.COMPRESSION_ERROR,
    ),
    "a table": (
        lambda _: [HeadersFrame(1, b"\x3f\x01", flags=("END_HEADERS",))],
        R.COMPRESSION_ERROR,
    ),
    "fields that swell": (lambda _: [HeadersFrame(1, bomb(), flags=("END_HEADERS",))], R.COMPRESSION_ERROR),
    "settings that are cut": (lambda _: [raw(4, b"\x00\x03\x00")], R.FRAME_SIZE_ERROR),
    "settings of a stream": (lambda _: [raw(4, stream=1)], R.PROTOCOL_ERROR),
    "a window that is too large by settings": (lambda _: [raw(4, b"\x00\x04\xff\xff\xff\xff")], R.FLOW_CONTROL_ERROR),
    "a window that grows too large": (lambda _: [WindowUpdateFrame(0, (1 << 31) - 1)], R.FLOW_CONTROL_ERROR),
    "a stream's window that grows too large": (lambda _: [WindowUpdateFrame(1, (1 << 31) - 1)], R.FLOW_CONTROL_ERROR),
    "a window of three bytes": (lambda _: [raw(8, b"abc")], R.FRAME_SIZE_ERROR),
    "a short ping": (lambda _: [raw(6, b"abc")], R.FRAME_SIZE_ERROR),
    "an end of a stream as of the connection": (lambda _: [raw(7, bytes(8), stream=1)], R.PROTOCOL_ERROR),
    "a short end": (lambda _: [raw(7, b"ab")], R.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize(("attack", "reason"), ATTACKS.values(), ids=ATTACKS.keys())
async def test_an_attack_ends_the_connection_and_says_why(tmp_path: Path, attack: Attack, reason: Reason) -> None:
    async with asking(tmp_path) as client:
        peer, _, answer = await client.asked()
        peer.send(*attack(peer))

        assert await peer.ended() == reason
        assert (await end_of(answer)).code != 0
        again, stream, answer = await client.asked()
        again.send(*again.answer(stream))
        assert (await end_of(answer)).code == 0


async def test_who_asks_and_never_reads_is_cut_off(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, _, answer = await client.asked()

        async def ask_on() -> None:
            while not answer.done():
                peer.send(*[PingFrame()] * 1000)
                await peer.writer.drain()

        # The reader's limit has asyncio read no more than twice that.
        with suppress(ConnectionError):
            await asyncio.wait_for(ask_on(), WITHIN_S)
        assert (await end_of(answer)).code == UNAVAILABLE


class Silent(asyncio.Transport):
    """Takes what is written, and says nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""

    def close(self) -> None:
        """Be gone."""

    abort = close


class Nobody:
    """Whose connection it is, who sends nothing again."""

    def made(self, connection: Connection) -> None:
        """Nothing."""

    has_room = leaving = lost = made

    def refused(self, call: Call) -> None:
        """End it."""
        call.fail(grpc.StatusCode.UNAVAILABLE, "refused")


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=40))))
def test_whatever_comes_ends_a_connection_at_most(frames: list[tuple[int, int, int, bytes]]) -> None:
    async def taken() -> list[Answer]:
        connection, ended = Connection(Nobody()), list[Answer]()
        connection.connection_made(Silent())
        connection.send(Call(b"", framed(b"x"), Reply(1 << 20), lambda _: True, ended.append))
        for kind, flags, stream, payload in frames:
            connection.data_received(raw(kind, payload, flags=flags, stream=stream))
        connection.connection_lost(None)
        return ended

    assert len(asyncio.run(taken())) == 1


@given(st.lists(st.tuples(st.text(st.characters(codec="ascii"), max_size=300), st.binary(max_size=70_000)), max_size=3))
def test_fields_that_are_written_are_read_as_they_were(fields: list[tuple[str, bytes]]) -> None:
    block = block_of(fields)

    assert [tuple(each) for each in Decoder(1 << 20).decode(block, raw=True)] == [
        (name.encode(), value) for name, value in fields
    ]


WORDS = st.sampled_from([b"grpc-status", b"date", b"x-llmesh-call-id", b"a", b"", b"0", b"x" * 3000])


@given(st.lists(st.lists(st.tuples(WORDS, WORDS, st.booleans()), max_size=6), max_size=8), st.booleans())
def test_blocks_are_read_as_by_hpack(blocks: list[list[tuple[bytes, bytes, bool]]], huffman: bool) -> None:  # noqa: FBT001
    encoder = without_table(Encoder())
    for fields in blocks:
        block = encoder.encode(fields, huffman=huffman)
        assert read(block) == {name: value for name, value, _ in fields}


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_what_hpack_cannot_read_is_not_read_and_what_it_can_is_the_same(blocks: list[bytes]) -> None:
    decoder = Decoder(FIELDS_MAX_BYTES)
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    for block in blocks:
        try:
            expected = dict(decoder.decode(block, raw=True))
        except HPACKError:
            with pytest.raises(PeerError):
                read(block)
            return
        assert read(block) == expected


@given(st.lists(st.integers(1, 400)))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    encoder = Encoder()
    block, tail = encoder.encode(HEAD), encoder.encode((("grpc-status", "0"),))
    sent = b"".join(
        each.serialize()
        for each in (
            SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 7}),
            HeadersFrame(1, block, flags=("END_HEADERS",)),
            DataFrame(1, framed(b"x" * 300)),
            HeadersFrame(1, tail, flags=("END_HEADERS", "END_STREAM")),
            GoAwayFrame(last_stream_id=1),
        )
    )

    whole, pieces, at = list(Frames().of(sent)), Frames(), 0
    come: list[tuple[int, int, int, bytes]] = []
    for cut in [*cuts, len(sent)]:
        come += pieces.of(sent[at : at + cut])
        at += cut
    assert come == whole
