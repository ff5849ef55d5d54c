"""Whether a process answers, hangs, or isn't there yet."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmesh.supervisor import probe
from llmesh.supervisor.probe import ServerProbe


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        yield Path(folder) / "t.sock"


async def answers(path: Path) -> bool | None:
    asking = ServerProbe(path)
    try:
        return await asking.answers()
    finally:
        await asking.close()


async def test_one_that_is_connected_to_and_never_shakes_hands_is_silent(path: Path) -> None:
    async def leave(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(leave, path):
        assert await answers(path) is False


async def test_one_that_takes_no_connection_any_more_is_silent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ASK_S", 0.2)
    with socket.socket(socket.AF_UNIX) as hanging, socket.socket(socket.AF_UNIX) as waiting:
        hanging.bind(str(path))
        hanging.listen(0)
        waiting.connect(str(path))
        assert await answers(path) is False


async def test_a_socket_that_nobody_listens_on_says_nothing(path: Path) -> None:
    assert await answers(path) is None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert await answers(path) is None
