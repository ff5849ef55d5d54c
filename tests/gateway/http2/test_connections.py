"""How connections begin, bear calls, and end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.http2.call import ANSWER_WINDOW_BYTES
from gateway.http2.connection import ALL_WINDOW_BYTES
from gateway.http2.frames import FRAME_MAX_BYTES
from gateway.http2.reply import framed
from tests.eventually import WITHIN_S
from tests.gateway.http2.peer import Peer, asking, end_of

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


async def body_of(peer: Peer, size: int) -> bytes:
    """So much of a request's body, as its frames come."""
    come = b""
    while len(come) < size:
        come += (await peer.next(DataFrame)).data
    assert len(come) == size
    return come


async def test_calls_share_a_connection(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        answers = [client.ask(str(each).encode())[1] for each in range(20)]
        peer = await client.peer()
        streams = [(await peer.next(HeadersFrame)).stream_id for _ in answers]
        for stream in reversed(streams):
            peer.send(*peer.answer(stream, str(stream).encode()))

        assert [(await end_of(each)).response for each in answers] == [str(each).encode() for each in range(1, 41, 2)]
        assert client.peers.empty()


async def test_no_more_calls_are_sent_at_once_than_the_server_takes(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        _, first = client.ask()
        peer = await client.peer(MAX_CONCURRENT_STREAMS=1)
        # The client's own, and then its word that it has read the server's.
        for _ in range(2):
            await peer.next(SettingsFrame)
        answers = [first, *(client.ask()[1] for _ in range(2))]
        peer.send(PingFrame())
        assert isinstance(await peer.frame(), PingFrame)

        for stream, answer in zip((1, 3, 5), answers, strict=True):
            peer.send(*peer.answer(stream))
            assert (await end_of(answer)).code == 0


async def test_a_large_request_waits_for_room_of_its_own_and_of_all(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        whole = framed(b"x" * 200_000)
        _, answer = client.ask(whole[5:])
        peer = await client.peer()
        begun = await body_of(peer, 65_535)
        peer.send(WindowUpdateFrame(1, 100_000))
        peer.send(WindowUpdateFrame(0, 10))
        begun += await body_of(peer, 10)
        peer.send(WindowUpdateFrame(0, 1 << 20))
        begun += await body_of(peer, 100_000 - 10)
        # What each call has at first grows, also of those under way.
        peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535 + 50_000}))
        begun += await body_of(peer, len(whole) - len(begun))
        peer.send(*peer.answer(1))

        assert begun == whole
        assert (await end_of(answer)).code == 0


async def test_requests_that_wait_for_room_go_on_in_turn(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        for _ in range(2):
            client.ask(b"x" * 200_000)
        peer = await client.peer()
        # The first has taken what there is for all.
        await body_of(peer, 65_535)
        peer.send(WindowUpdateFrame(1, 100_000), WindowUpdateFrame(0, 2 * FRAME_MAX_BYTES))

        next_ones = [await peer.next(DataFrame) for _ in range(2)]

        assert {each.stream_id: len(each.data) for each in next_ones} == {1: FRAME_MAX_BYTES, 3: FRAME_MAX_BYTES}


async def test_a_window_may_become_negative(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        whole = framed(b"x" * 100_000)
        client.ask(whole[5:])
        peer = await client.peer()
        await body_of(peer, 65_535)
        peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        peer.send(WindowUpdateFrame(0, 1 << 20), WindowUpdateFrame(1, 65_535), WindowUpdateFrame(1, 7))

        assert len(await body_of(peer, 7)) == 7


async def test_an_early_answer_ends_a_request_that_waits_for_room(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        _, answer = client.ask(b"x" * 200_000)
        peer = await client.peer()
        peer.send(*peer.answer(1))

        assert (await end_of(answer)).response == b"hello"
        assert (await peer.next(RstStreamFrame)).error_code == 0


async def test_large_answers_are_let_in_piece_by_piece(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        body, room, all_room = framed(b"x" * 3_000_000), ANSWER_WINDOW_BYTES, ALL_WINDOW_BYTES
        peer.send(peer.head(stream))
        for at in range(0, len(body), 1 << 14):
            piece = body[at : at + (1 << 14)]
            while min(room, all_room) < len(piece):
                more = await peer.next(WindowUpdateFrame)
                room += more.window_increment if more.stream_id else 0
                all_room += 0 if more.stream_id else more.window_increment
            room, all_room = room - len(piece), all_room - len(piece)
            peer.send(DataFrame(stream, piece))
        peer.send(peer.tail(stream))

        assert (await end_of(answer)).response == body[5:]


async def test_a_server_that_leaves_ends_what_it_took_and_the_rest_goes_to_the_next_one(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, first = await client.asked()
        _, second = client.ask(b"second")
        await peer.next(HeadersFrame)
        peer.send(GoAwayFrame(last_stream_id=stream))

        next_peer = await client.peer()
        assert (await next_peer.next(DataFrame)).data == framed(b"second")
        next_peer.send(*next_peer.answer(1, b"by the next"))
        assert (await end_of(second)).response == b"by the next"
        peer.send(*peer.answer(stream, b"by the first"))
        assert (await end_of(first)).response == b"by the first"
        async with asyncio.timeout(WITHIN_S):
            await peer.reader.read()


async def test_a_call_that_is_refused_unseen_is_sent_once_more_and_no_oftener(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(RstStreamFrame(stream, error_code=7))
        again = (await peer.next(HeadersFrame)).stream_id
        peer.send(RstStreamFrame(again, error_code=7))

        assert (await end_of(answer)).code == UNAVAILABLE


async def test_servers_that_leave_one_after_the_other_end_a_call(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        _, answer = client.ask()
        for _ in range(2):
            peer = await client.peer()
            await peer.next(HeadersFrame)
            peer.send(GoAwayFrame(last_stream_id=0))

        assert (await end_of(answer)).code == UNAVAILABLE


async def test_a_call_that_was_answered_in_part_is_not_sent_again(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, stream, answer = await client.asked()
        peer.send(peer.head(stream), RstStreamFrame(stream, error_code=7))

        ended = await end_of(answer)
        assert (ended.code, ended.head[b":status"]) == (UNAVAILABLE, b"200")


async def test_a_connection_that_breaks_ends_its_calls_and_the_next_call_makes_another(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        peer, _, answer = await client.asked()
        peer.writer.transport.abort()
        assert (await end_of(answer)).code == UNAVAILABLE

        again, stream, answer = await client.asked()
        again.send(*again.answer(stream))
        assert (await end_of(answer)).code == 0


async def test_closing_ends_every_call(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        _, _, answer = await client.asked()
        _, waiting = client.ask()

        await client.wire.close()

        assert {(await end_of(each)).code for each in (answer, waiting)} == {UNAVAILABLE}
        assert asyncio.all_tasks() == {asyncio.current_task()}
