"""The call log, followed through all its files: each is read on from where it was read to, whatever it is called now.

A file is known by its first line, which has a call's id: that stays as it is
when the file is put aside, differs when a file is cut and begun anew, and is
no other's when the system gives its number again. Envoys that take over from
one another write to several files at once, so none is finished before it is
gone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["CallLog", "Part"]

READ_BYTES = 1 << 19
# No line is as long: the longest headers that are logged have a few KiB.
LINE_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of one file. read_bytes: how far it is read with them. unread_bytes: what is left for later."""

    file: str
    lines: tuple[bytes, ...]
    read_bytes: int
    unread_bytes: int


class CallLog:
    """The files of one call log. Of one thread."""

    def __init__(self, path: Path) -> None:
        """path: of the newest file; earlier ones lie beside it as NAME.1, NAME.2 and so on."""
        self._path = path
        # What the files looked like, by number, when they were last read to their ends.
        self._read: dict[int, tuple[int, int]] = {}
        # Those that were there when it was last read.
        self.files: frozenset[str] = frozenset()

    def changed(self) -> bool:
        """Whether there may be something to read. Raises OSError."""
        return any(self._read.get(number) != (size, changed) for _, number, size, changed in self._listed())

    def unread(self, positions: Mapping[str, int]) -> Iterator[Part]:
        """What comes after the positions, the oldest file first; `files` says which are there. Raises OSError.

        positions: bytes read by file. Of a line that is half written nothing is read.
        """
        there: set[str] = set()
        for path, number, size, changed in self._listed():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                # Put aside just now, or for good; it is looked for again.
                continue
            with file:
                name = _first_line(file)
                if not name:
                    self._read[number] = (size, changed)
                    continue
                there.add(name)
                part = _part(file, name, positions.get(name, 0))
            if part.unread_bytes:
                self._read.pop(number, None)
            else:
                self._read[number] = (size, changed)
            if part.lines or part.read_bytes != positions.get(name, 0):
                yield part
        self.files = frozenset(there)

    def _listed(self) -> list[tuple[Path, int, int, int]]:
        """Path, inode, size and time of change of every file, the oldest first."""
        found: list[tuple[int, Path, os.stat_result]] = []
        for path in self._path.parent.glob(f"{self._path.name}*"):
            age = path.name.removeprefix(self._path.name).removeprefix(".") or "0"
            if age.isdecimal():
                try:
                    found.append((int(age), path, path.stat()))
                except FileNotFoundError:
                    continue
        found.sort(reverse=True)
        return [(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for _, path, stat in found]


def _first_line(file: BinaryIO) -> str:
    """What the file is known by; empty while there is no whole line."""
    line = file.readline(LINE_MAX_BYTES)
    whole = line.endswith(b"\n") or len(line) == LINE_MAX_BYTES
    return hashlib.sha256(line).hexdigest() if whole else ""


def _part(file: BinaryIO, name: str, read_bytes: int) -> Part:
    file.seek(read_bytes)
    data = file.read(READ_BYTES)
    end = data.rfind(b"\n") + 1
    if not end and len(data) > LINE_MAX_BYTES:
        # No line: what a broken disk may leave. It is told as one that cannot be read.
        return Part(name, (data,), read_bytes + len(data), file.seek(0, os.SEEK_END) - read_bytes - len(data))
    unread = file.seek(0, os.SEEK_END) - read_bytes - end if len(data) == READ_BYTES else 0
    return Part(name, tuple(data[:end].split(b"\n")[:-1]), read_bytes + end, unread)
