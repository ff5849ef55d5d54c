"""Callers' connections, at their end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.fanout import lines
from gateway.fanout.lines import Lines
from gateway.http2.wire import Wire
from tests.eventually import eventually


class Slow(Wire):
    """Is closed once a test lets it."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.let = asyncio.Event()

    async def close(self) -> None:
        await self.let.wait()
        await super().close()


async def test_a_line_that_is_closed_is_not_closed_again_later(tmp_path: Path) -> None:
    made = Lines(tmp_path / "none.sock")
    idle, busy = made.take("idle"), made.take("busy")
    made.give_back("idle", idle)

    await made.close()
    made.give_back("busy", busy)

    assert idle.closing is not None
    assert idle.closing.cancelled()
    assert (busy.closing, made.count) == (None, 0)


async def test_the_end_waits_for_a_line_that_is_being_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "IDLE_S", 0)
    made, slow = Lines(tmp_path / "none.sock"), Slow(tmp_path / "none.sock")
    line = made.take("sam")
    line.wire = slow
    made.give_back("sam", line)

    async def is_being_closed() -> None:
        assert made.count == 0

    await eventually(is_being_closed)
    ending = asyncio.create_task(made.close())
    ended, _ = await asyncio.wait({ending}, timeout=0.1)
    assert not ended
    slow.let.set()
    await ending
