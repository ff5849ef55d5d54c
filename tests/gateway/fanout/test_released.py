"""Legs that were given up before a server looked at them: none of them is sent."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from gateway.fanout.allowances import Allowance
from gateway.fanout.legs import Leg, Legs, Request
from gateway.fanout.lines import Lines
from gateway.http2.frames import FRAME_MAX_BYTES, Reason
from gateway.http2.reply import Answer
from tests.eventually import eventually
from tests.gateway.fanout.test_legs import NO_METADATA, NOTHING, hanging, nothing_is_left, read, start
from tests.gateway.http2.peer import Peer, asking

WRITE, LATER = "/a.v1.Tool/Write", "/a.v1.Tool/Later"
# Says of the first call that it was not looked at.
UNSEEN = GoAwayFrame(last_stream_id=0), RstStreamFrame(1, error_code=Reason.REFUSED_STREAM)


async def next_path(peer: Peer) -> str:
    """The path of the next call that comes."""
    return dict(peer.decoder.decode((await peer.next(HeadersFrame)).data, raw=True))[b":path"].decode()


@pytest.mark.parametrize("begin", [start, read])
@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("left", [0.0, 1.0])
async def test_a_leg_that_waits_for_a_server_is_never_sent_once_it_is_released(
    tmp_path: Path, left: float, begin: Callable[[Legs, str], Leg], *, expired: bool
) -> None:
    waiting = Legs(Lines(tmp_path / "legs.sock"))
    waiting.lines.resets = lambda: Allowance(1, 0.25, left)
    leg = begin(waiting, WRITE)

    waiting.release(leg, expired=expired)

    assert (leg.cancelled, leg.cancelling) == (True, None)
    await nothing_is_left(waiting)
    # Nothing was reset, and it did not end by itself.
    assert leg.resets.left == left
    async with hanging(tmp_path) as (_, server):
        begin(waiting, LATER)

        async def has_come() -> None:
            assert server.open[LATER] == 1

        await eventually(has_come, within_s=20)
        # Legs are sent in their order.
        assert server.open[WRITE] == 0
        await waiting.close()


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("unseen", UNSEEN, ids=["goaway", "reset"])
async def test_a_released_leg_is_not_sent_again_when_the_server_has_not_looked_at_it(
    tmp_path: Path, unseen: Frame, *, expired: bool
) -> None:
    async with asking(tmp_path) as server:
        legs, ends = Legs(Lines(tmp_path / "peer.sock")), list[Answer]()
        legs.lines.resets = lambda: Allowance(1, 0.25, 0)
        leg = legs.ask(WRITE, NOTHING, NO_METADATA, caller="sam", holds=lambda _: True, ended=ends.append)
        peer = await server.peer()
        assert await next_path(peer) == WRITE
        legs.release(leg, expired=expired)
        peer.send(unseen)

        await nothing_is_left(legs)
        assert not ends
        start(legs, LATER)
        if isinstance(unseen, GoAwayFrame):
            peer = await server.peer()
        assert await next_path(peer) == LATER
        await legs.close()


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("unseen", UNSEEN, ids=["goaway", "reset"])
async def test_a_released_stream_is_not_sent_again_by_grpc_itself(
    tmp_path: Path, unseen: Frame, *, expired: bool
) -> None:
    async with asking(tmp_path) as server:
        legs = Legs(Lines(tmp_path / "peer.sock"))
        legs.lines.resets = lambda: Allowance(1, 0.25, 0)
        leg = read(legs, WRITE)
        peer = await server.peer()
        assert await next_path(peer) == WRITE
        legs.release(leg, expired=expired)
        peer.send(unseen)

        await nothing_is_left(legs)
        read(legs, LATER)
        if isinstance(unseen, GoAwayFrame):
            peer = await server.peer()
        assert await next_path(peer) == LATER
        await legs.close()


async def test_of_a_released_leg_whose_request_waits_for_room_no_more_is_sent_or_kept(tmp_path: Path) -> None:
    async with asking(tmp_path) as server:
        legs = Legs(Lines(tmp_path / "peer.sock"))
        legs.lines.resets = lambda: Allowance(1, 0.25, 0)
        large = Request(b"a" * (3 << 20))
        leg = legs.ask(WRITE, large, NO_METADATA, caller="sam", holds=lambda _: True, ended=lambda _: None)
        peer = await server.peer()
        # As much as it takes by itself.
        while len((await peer.next(DataFrame)).data) == FRAME_MAX_BYTES:
            pass
        kept = weakref.ref(large)
        del large

        legs.release(leg)

        last = await peer.next(DataFrame)
        assert (last.data, last.flags) == (b"", {"END_STREAM"})
        assert leg.call is not None
        assert leg.call.body == b""
        assert kept() is None
        await legs.close()
