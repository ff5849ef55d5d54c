"""Logs on a disk that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmesh.supervisor import late_log
from llmesh.supervisor.late_log import LateLog
from llmesh.supervisor.logs import LogFile


class HangingFile(LogFile):
    """Takes no line before it is let to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, rotate_bytes=1 << 20, keep=1)
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def write(self, line: str) -> None:
        self.begun.set()
        assert self.goes_on.wait(120)
        super().write(line)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HangingFile]:
    made = HangingFile(tmp_path / "one.log")
    yield made
    made.goes_on.set()


def test_nobody_waits_for_a_disk_that_hangs_and_no_line_is_lost(
    file: HangingFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, said = LateLog(file), [f"line {number}" for number in range(1000)]
    for line in said:
        log.write(line)
    file.goes_on.set()
    monkeypatch.setattr(late_log, "CLOSE_WITHIN_S", 60)
    log.close()
    assert (tmp_path / "one.log").read_text().splitlines() == said


def test_what_is_too_much_to_be_kept_is_lost_and_counted(
    file: HangingFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_log, "MOST_PENDING_BYTES", 10)
    log = LateLog(file)
    log.write("first")
    # That one is in the disk's hands.
    assert file.begun.wait(60)
    for line in ("second", "third", "two", "four"):
        log.write(line)
    file.goes_on.set()
    monkeypatch.setattr(late_log, "CLOSE_WITHIN_S", 60)
    log.close()
    assert (tmp_path / "one.log").read_text().splitlines() == [
        *("first", "second", "two"),
        "[llmesh] 2 lines lost: the disk took no more",
    ]


def test_the_end_does_not_wait_for_a_disk_that_hangs(file: HangingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_log, "CLOSE_WITHIN_S", 0)
    log = LateLog(file)
    log.write("first")
    # Comes to an end.
    log.close()
