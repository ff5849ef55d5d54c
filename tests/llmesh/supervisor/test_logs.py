"""What programs print: whole lines, whatever they send."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import stat
from errno import EMFILE
from pathlib import Path

import pytest

from llmesh.cli.starting import log_text
from llmesh.log import TextFormatter
from llmesh.supervisor import logs
from llmesh.supervisor.logs import LogFile, last_lines, lines
from llmesh.supervisor.rotation import put_aside


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
    evil = "\x1b[2J\x9bgone\x07\nnext"
    record = {"time": evil, "level": "info", "event": evil, "one": evil, "two": [evil], evil: 1}
    [line] = await read(json.dumps(record).encode() + b"\n")
    assert log_text(line).plain.isprintable()
    assert log_text(line).plain.count("[2Jgone next") == 3


def test_what_is_logged_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\x9bgone\x07\nnext"
    record = logging.makeLogRecord({"msg": evil, "levelno": logging.INFO, "one": evil, "two": [evil], evil: 1})
    assert TextFormatter().format(record).isprintable()
    record.exc_info = (ValueError, ValueError(evil), None)
    assert all(line.isprintable() for line in TextFormatter().format(record).split("\n"))


async def test_an_endless_line_comes_in_pieces() -> None:
    found = await read(b"x" * (3 * logs.MAX_LINE_BYTES))
    assert "".join(found) == "x" * (3 * logs.MAX_LINE_BYTES)
    assert len(found) >= 3


def log_at(path: Path, *, rotate_bytes: int = 1 << 20, keep: int = 1) -> LogFile:
    return LogFile(path, rotate_bytes=rotate_bytes, keep=keep)


def read_all(folder: Path) -> list[list[str]]:
    """The lines of each file of the log, the oldest first."""
    files = sorted(folder.iterdir(), key=lambda path: path.name, reverse=True)
    return [path.read_text().splitlines() for path in files]


def test_a_full_log_is_put_aside_and_so_many_earlier_ones_are_kept(tmp_path: Path) -> None:
    log = log_at(tmp_path / "one.log", rotate_bytes=12, keep=2)
    # "first" and "zwölf" with their newlines are 13 bytes, of 12 characters.
    log.write("first")
    log.write("zwölf")
    assert read_all(tmp_path) == [["first"], ["zwölf"]]
    for line in ("next", "last", "final", "again"):
        log.write(line)
    log.close()
    assert read_all(tmp_path) == [["zwölf", "next"], ["last", "final"], ["again"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.log", "one.log.1", "one.log.2"]


def test_no_line_is_lost_while_a_log_is_put_aside(tmp_path: Path) -> None:
    log = log_at(tmp_path / "one.log", rotate_bytes=30, keep=100)
    lines_written = [f"line {number}" for number in range(100)]
    for line in lines_written:
        log.write(line)
    log.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix.lstrip(".").replace("log", "0")))
    assert [line for path in files for line in path.read_text().splitlines()] == lines_written


def test_a_log_that_cannot_be_put_aside_goes_on(tmp_path: Path) -> None:
    log = log_at(tmp_path / "one.log", rotate_bytes=1)
    (tmp_path / "one.log.1").mkdir()
    for line in ("first", "second"):
        log.write(line)
    log.close()
    assert (tmp_path / "one.log").read_text() == "first\nsecond\n"


def test_a_log_that_cannot_be_opened_goes_on_and_the_earlier_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_at(tmp_path / "one.log", rotate_bytes=6, keep=3)
    log.write("first")
    log.write("second")

    def full(_path: str, _flags: int) -> int:
        raise OSError(EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(logs, "_private", full)
        for line in ("third", "fourth", "fifth"):
            log.write(line)
    assert read_all(tmp_path) == [["first"], ["second", "third", "fourth", "fifth"]]
    log.write("sixth")
    log.write("last")
    log.close()
    assert read_all(tmp_path) == [["first"], ["second", "third", "fourth", "fifth"], ["sixth"], ["last"]]


def test_a_line_of_which_a_full_disk_takes_half_spoils_no_other(tmp_path: Path) -> None:
    log = log_at(tmp_path / "one.log")
    log.write("first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len("first\nsec"), limits[1]))
    try:
        log.write("second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write("third")
    log.close()
    assert (tmp_path / "one.log").read_text() == "first\nthird\n"


def test_nothing_to_put_aside_leaves_the_earlier_ones(tmp_path: Path) -> None:
    for name in ("one.log.1", "one.log.2"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileNotFoundError):
        put_aside(tmp_path / "one.log", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.log.1", "one.log.2"]


def test_a_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    path.touch(0o644)
    log_at(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_stops_nobody() -> None:
    log = log_at(Path("/dev/full"))
    log.write("lost")
    log.close()


def test_the_last_lines_of_no_log_are_none(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log", 3) == []
    (tmp_path / "one.log").write_text("a\nb\nc\n")
    assert last_lines(tmp_path / "one.log", 2) == ["b", "c"]
