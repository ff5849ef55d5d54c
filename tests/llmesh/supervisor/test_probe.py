"""Whether a process answers, hangs, or isn't there yet."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmesh.home import Home
from llmesh.supervisor import probe
from llmesh.supervisor.probe import ServerProbe, ToolProbe


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


async def leave(_reader: StreamReader, writer: StreamWriter) -> None:
    writer.close()


async def test_one_that_is_connected_to_and_never_shakes_hands_is_silent(path: Path) -> None:
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


@pytest.fixture
def wrapped() -> Iterator[tuple[int, int]]:
    """The ids of a process, and of one that it started."""
    sleeper = (sys.executable, "-c", "import signal; signal.pause()")
    with (
        subprocess.Popen(sleeper, process_group=0) as wrapper,
        subprocess.Popen(sleeper, process_group=wrapper.pid) as tool,
    ):
        yield wrapper.pid, tool.pid
        wrapper.kill()
        tool.kill()


async def test_a_tool_started_by_another_process_is_asked_at_its_own_socket(
    tmp_path: Path, wrapped: tuple[int, int]
) -> None:
    home, (wrapper, tool) = Home.find(tmp_path / "m").create(), wrapped
    asking, stranger = ToolProbe(home, "text", pid=wrapper), ToolProbe(home, "text", pid=tool + 2**22)
    assert await asking.answers() is None
    async with await asyncio.start_unix_server(leave, home.tool_socket("text", pid=tool)):
        assert await asking.answers() is False
        assert await stranger.answers() is None
    await asking.close()
    await stranger.close()
