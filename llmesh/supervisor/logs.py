"""What children print, line by line: to logs/NAME.log and to the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from llmesh.log import printable
from llmesh.supervisor.rotation import put_aside

# Takes a child's name and one line of what it printed.
Sink = Callable[[str, str], None]

MAX_LINE_BYTES = 64 * 1024
PRIVATE = 0o600
WORDS_MAX = 400


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream until it ends; one that is too long comes in pieces."""
    rest = b""
    while chunk := await stream.read(MAX_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield _text(line)
        if len(rest) >= MAX_LINE_BYTES:
            yield _text(rest)
            rest = b""
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    """A line that can't steer the terminal it is shown on."""
    return printable(line.rstrip(b"\r").decode("utf-8", "replace"))


class LogFile:
    """Appends lines to a file, for its owner alone, and puts it aside when it is full."""

    def __init__(self, path: Path, *, rotate_bytes: int, keep: int) -> None:
        """No file grows beyond rotate_bytes, unless by one line that is longer. keep: of how many earlier ones."""
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._size = 0
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append one line. What a full disk doesn't take is lost: whoever prints must not come to a halt."""
        data = line.encode() + b"\n"
        if self._size and self._size + len(data) > self._rotate_bytes:
            with suppress(OSError):
                self._turn()
        with suppress(OSError):
            written = self._file.write(data)
            if written < len(data):
                # The next line must not go on with half of this one.
                handle = self._file.fileno()
                os.ftruncate(handle, os.fstat(handle).st_size - written)
            else:
                self._size += written

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()

    def _turn(self) -> None:
        """Begin a new file. If that fails, the one that is open goes on."""
        # There is none if it could not be made when the one that is open was put aside.
        if self._path.exists():
            put_aside(self._path, self._keep)
        older = self._file
        self._file = self._open()
        older.close()

    def _open(self) -> IO[bytes]:
        file = open(self._path, "ab", buffering=0, opener=_private)  # noqa: SIM115 closed by `close`; only this takes an opener
        # One that an earlier version made is open to others; what is no file isn't ours to close.
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), PRIVATE)
        self._size = file.tell()
        return file


def in_words(line: str) -> str:
    """A line of a log as it is told to somebody: of one of ours, the event and its error; cut where it is long."""
    try:
        entry = json.loads(line)
        words = ": ".join(str(entry[key]) for key in ("event", "error") if entry.get(key))
    except (ValueError, AttributeError):
        words = line
    return printable(words if len(words) <= WORDS_MAX else f"{words[:WORDS_MAX]}...")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log; empty if there is none."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    except OSError:
        return []
