"""What a server may say, and how a call has ended by it: gRPC over HTTP/2."""

from __future__ import annotations

import tracemalloc
from base64 import b64encode
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from gateway.http2.reply import Reply, framed
from tests.gateway.http2.peer import HEAD, LIMIT_BYTES, asking, end_of

C = grpc.StatusCode


def code(status: grpc.StatusCode) -> int:
    return status.value[0]


async def test_an_answer_gives_its_response_with_the_fields_before_and_after(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(
            peer.head(stream, (*HEAD, ("x-llmesh-call-id", "7"))),
            DataFrame(stream, framed(b"hello")),
            peer.tail(stream, (("grpc-status", "0"), ("x-llmesh-provenance", "[]"))),
        )

        ended = await end_of(answer)
        assert (ended.code, ended.response) == (0, b"hello")
        assert (ended.head[b"x-llmesh-call-id"], ended.trailers[b"x-llmesh-provenance"]) == (b"7", b"[]")


async def test_what_is_sent_is_a_grpc_call(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        client.ask(b"hi")
        peer = await client.peer()
        head = await peer.next(HeadersFrame)
        body = await peer.next(DataFrame)

        assert list(peer.decoder.decode(head.data)) == [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.v1.Tool/Get"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "llmesh"),
            ("x-test", "yes"),
        ]
        assert (body.data, "END_STREAM" in body.flags) == (framed(b"hi"), True)


async def test_an_answer_may_come_in_pieces_padded_and_after_an_interim_one(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        block = peer.encoder.encode(HEAD)
        body = framed(b"hello")
        peer.send(
            peer.head(stream, ((":status", "103"),)),
            HeadersFrame(stream, block[:3], pad_length=4, flags=("PADDED", "PRIORITY")),
            ContinuationFrame(stream, block[3:5]),
            ContinuationFrame(stream, block[5:], flags=("END_HEADERS",)),
        )
        for at in range(len(body)):
            peer.send(DataFrame(stream, body[at : at + 1], pad_length=at, flags=("PADDED",)))
        peer.send(DataFrame(stream), peer.tail(stream))

        assert (await end_of(answer)).response == b"hello"


async def test_an_error_may_come_alone_with_its_message_and_details(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        details = b64encode(b"details").decode()
        fields = (("grpc-status", "9"), ("grpc-message", "no%20caf%C3%A9"), ("grpc-status-details-bin", details))
        peer.send(peer.tail(stream, (*HEAD, *fields)))

        ended = await end_of(answer)
        assert (ended.code, ended.message, ended.response) == (9, "no café", None)
        assert ended.trailers[b"grpc-status-details-bin"] == details.encode()


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (0, C.INTERNAL),
        (1, C.INTERNAL),
        (2, C.INTERNAL),
        (3, C.INTERNAL),
        (8, C.CANCELLED),
        (11, C.RESOURCE_EXHAUSTED),
        (12, C.PERMISSION_DENIED),
        (77, C.INTERNAL),
    ],
)
async def test_a_reset_reads_as_grpc_has_it(tmp_path: Path, reason: int, status: grpc.StatusCode) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(RstStreamFrame(stream, error_code=reason))

        assert (await end_of(answer)).code == code(status)


@pytest.mark.parametrize(
    ("http", "status"),
    [
        ("400", C.INTERNAL),
        ("401", C.UNAUTHENTICATED),
        ("403", C.PERMISSION_DENIED),
        ("404", C.UNIMPLEMENTED),
        ("429", C.UNAVAILABLE),
        ("503", C.UNAVAILABLE),
        ("200", C.UNKNOWN),
        ("500", C.UNKNOWN),
        ("much", C.UNKNOWN),
    ],
)
async def test_an_answer_that_is_no_grpcs_reads_as_its_http_status(
    tmp_path: Path, http: str, status: grpc.StatusCode
) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        fields = ((":status", http), ("content-type", "text/html"))
        peer.send(peer.head(stream, fields), DataFrame(stream, b"<p>", flags=("END_STREAM",)))
        assert (await end_of(answer)).code == code(status)

        _, answer = client.ask()
        stream = (await peer.next(HeadersFrame)).stream_id
        peer.send(peer.tail(stream, fields))
        assert (await end_of(answer)).code == code(status)


@pytest.mark.parametrize(
    ("body", "tail", "status"),
    [
        (framed(b"whole"), (("grpc-message", "no status"),), C.UNKNOWN),
        (framed(b"whole"), (("grpc-status", "ninety"),), C.UNKNOWN),
        (framed(b"whole"), (("grpc-status", "17"),), C.UNKNOWN),
        (b"", (("grpc-status", "0"),), C.OK),
        (framed(b"half")[:-1], (("grpc-status", "0"),), C.INTERNAL),
        (framed(b"one") + framed(b"two"), (("grpc-status", "0"),), C.INTERNAL),
        (b"\x01" + framed(b"compressed")[1:], (("grpc-status", "0"),), C.INTERNAL),
        (b"\x00" + (LIMIT_BYTES + 1).to_bytes(4, "big"), (("grpc-status", "0"),), C.RESOURCE_EXHAUSTED),
        (b"\x00\xff\xff\xff\xff", (("grpc-status", "0"),), C.RESOURCE_EXHAUSTED),
    ],
)
async def test_an_answer_that_is_not_one_response_gives_none_and_harms_no_other_call(
    tmp_path: Path, body: bytes, tail: tuple[tuple[str, str], ...], status: grpc.StatusCode
) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        _, other = client.ask()
        peer.send(peer.head(stream), DataFrame(stream, body), peer.tail(stream, tail), *peer.answer(stream + 2))

        ended = await end_of(answer)
        assert (ended.code, ended.response) == (code(status), None)
        assert (await end_of(other)).response == b"hello"


async def test_an_answer_without_trailers_is_an_error(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(peer.head(stream), DataFrame(stream, framed(b"x"), flags=("END_STREAM",)))

        assert (await end_of(answer)).code == code(C.UNKNOWN)


@pytest.mark.parametrize("heads", [0, 2])
async def test_an_answer_without_headers_or_with_more_than_one_is_broken_off(tmp_path: Path, heads: int) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(*[peer.head(stream) for _ in range(heads)], DataFrame(stream, framed(b"x")))

        assert (await end_of(answer)).code == code(C.INTERNAL)
        assert (await peer.next(RstStreamFrame)).stream_id == stream


async def test_an_answer_for_which_there_is_no_room_is_broken_off(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        left = 6

        def holds(size: int) -> bool:
            nonlocal left
            left -= size
            return left >= 0

        _, answer = client.ask(holds=holds)
        peer = await client.peer()
        peer.send(peer.head(1), DataFrame(1, framed(b"hello, there")[:9]), DataFrame(1, b"o, there"))

        assert (await end_of(answer)).code == code(C.RESOURCE_EXHAUSTED)
        assert (await peer.next(RstStreamFrame)).error_code == 8


async def test_a_call_that_is_cancelled_is_reset_and_what_still_comes_of_it_counts_for_nothing(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        call, answer = client.ask()
        peer = await client.peer()
        await peer.next(HeadersFrame)
        client.wire.cancel(call)
        assert (await end_of(answer)).code == code(C.CANCELLED)
        reset = await peer.next(RstStreamFrame)
        assert (reset.stream_id, reset.error_code) == (1, 8)

        _, other = client.ask()
        peer.send(*peer.answer(1), *peer.answer(3, b"other"))

        assert (await end_of(other)).response == b"other"


async def test_pings_and_settings_are_answered_and_what_is_unknown_is_passed_over(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        assert "ACK" in (await peer.next(SettingsFrame)).flags
        peer.send(b"\x00\x00\x01\xee\x00\x00\x00\x00\x00x", PingFrame(opaque_data=b"12345678"))
        assert (await peer.next(PingFrame)).opaque_data == b"12345678"
        peer.send(*peer.answer(stream))

        assert (await end_of(answer)).code == 0


async def test_calls_wait_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        socket = tmp_path / "peer.sock"
        socket.rename(tmp_path / "away.sock")
        call, given_up = client.ask()
        _, answer = client.ask()
        client.wire.cancel(call)
        assert (await end_of(given_up)).code == code(C.CANCELLED)
        assert client.peers.empty()
        (tmp_path / "away.sock").rename(socket)

        peer = await client.peer()
        peer.send(*peer.answer(1))

        assert (await end_of(answer)).code == 0


async def test_an_answer_may_come_in_pieces_of_two_bytes(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        body = framed(bytes(range(256)) * 4)
        pieces = [DataFrame(stream, body[at : at + 2]) for at in range(0, len(body), 2)]
        peer.send(peer.head(stream), *pieces, peer.tail(stream))

        assert (await end_of(answer)).response == body[5:]


@pytest.mark.parametrize(("piece", "most_bytes"), [(b"xx", 400_000), (b"", 10_000)], ids=["small", "empty"])
def test_what_is_held_of_an_answer_is_its_size_however_small_its_pieces(piece: bytes, most_bytes: int) -> None:
    reply = Reply(LIMIT_BYTES)
    reply.fields({b":status": b"200", b"content-type": b"application/grpc"}, last=False)
    reply.data(framed(b"x" * 200_000)[:5], last=False)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            # As frames bring it: an object of its own.
            reply.data(bytes(bytearray(piece)), last=False)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reply.response_bytes == 100_000 * len(piece)
    assert held_bytes < most_bytes


async def test_a_bad_answer_that_has_ended_is_not_broken_off(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(peer.head(stream), DataFrame(stream, framed(b"hello") + b"more", flags=("END_STREAM",)))
        assert (await end_of(answer)).code == code(C.INTERNAL)
        peer.send(PingFrame())

        while not isinstance(frame := await peer.frame(), PingFrame):
            assert not isinstance(frame, RstStreamFrame)


async def test_an_answer_for_which_there_is_no_room_is_not_broken_off_once_it_has_ended(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        _, answer = client.ask(holds=lambda _: False)
        peer = await client.peer()
        stream = (await peer.next(HeadersFrame)).stream_id
        peer.send(peer.head(stream), DataFrame(stream, framed(b"hello"), flags=("END_STREAM",)))
        assert (await end_of(answer)).code == code(C.RESOURCE_EXHAUSTED)
        peer.send(PingFrame())

        while not isinstance(frame := await peer.frame(), PingFrame):
            assert not isinstance(frame, RstStreamFrame)
