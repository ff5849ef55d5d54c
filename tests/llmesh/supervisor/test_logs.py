"""What programs print: whole lines, whatever they send."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from llmesh.supervisor import logs
from llmesh.supervisor.logs import LogFile, last_lines, lines


async def read(*chunks: bytes) -> list[str]:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    return [line async for line in lines(stream)]


async def test_lines_come_whole_however_they_are_sent() -> None:
    assert await read(b"on", b"e\ntw", "ö\r\n".encode(), b"\n", b"rest") == ["one", "twö", "", "rest"]


async def test_a_line_cannot_steer_the_terminal() -> None:
    assert await read(b"\x1b[2Jgone\x07\t\xff\n") == ["[2Jgone\t\ufffd"]


async def test_an_endless_line_comes_in_pieces() -> None:
    found = await read(b"x" * (3 * logs.MAX_LINE_BYTES))
    assert "".join(found) == "x" * (3 * logs.MAX_LINE_BYTES)
    assert len(found) >= 3


def read_both(folder: Path) -> tuple[list[str], list[str]]:
    """The lines of the older file, and of the current one."""
    return (folder / "one.log.1").read_text().splitlines(), (folder / "one.log").read_text().splitlines()


def test_a_log_keeps_one_older_file_and_loses_no_line_when_it_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 12)
    log = LogFile(tmp_path / "one.log")
    # "first" and "zwölf" with their newlines are 13 bytes, of 12 characters.
    log.write("first")
    log.write("zwölf")
    written = ["first", "zwölf"]
    assert read_both(tmp_path) == (["first"], ["zwölf"])
    for line in ("next", "last"):
        log.write(line)
        written.append(line)
        older, current = read_both(tmp_path)
        assert older + current == written[-len(older + current) :]
    log.close()
    assert read_both(tmp_path) == (["zwölf", "next"], ["last"])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_cannot_turn_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 1)
    log = LogFile(tmp_path / "one.log")
    (tmp_path / "one.log.1").mkdir()
    for line in ("first", "second"):
        log.write(line)
    log.close()
    assert (tmp_path / "one.log").read_text() == "first\nsecond\n"


def test_a_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    path.touch(0o644)
    LogFile(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_stops_nobody() -> None:
    log = LogFile(Path("/dev/full"))
    log.write("lost")
    log.close()


def test_the_last_lines_of_no_log_are_none(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log", 3) == []
    (tmp_path / "one.log").write_text("a\nb\nc\n")
    assert last_lines(tmp_path / "one.log", 2) == ["b", "c"]
