"""Where a mesh in the foreground prints: a terminal or pipe that need not be read for the mesh to go on."""

from __future__ import annotations

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

MOST_PENDING = 2000
ENCODING = "utf-8"


class Screen(io.TextIOBase):
    """Text goes out by a thread of its own, so that writing never waits.

    While nobody reads, the last MOST_PENDING writes are kept; of what is dropped,
    the number of lines is told in its place. `gone` is called, once, by that
    thread when nobody will ever read.
    """

    def __init__(self, out: TextIO, *, gone: Callable[[], None]) -> None:
        self._out = out
        self._gone = gone
        self._pending = deque[str]()
        self._dropped = 0
        self._ending = False
        self._changed = threading.Condition()
        # A daemon: one that hangs in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] the base declares an attribute
        """For whoever wants to know what can be written."""
        return ENCODING

    def isatty(self) -> bool:
        """Whether a person looks."""
        return self._out.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str, /) -> int:
        """Have text written when it can be."""
        if not text:
            return 0
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()
            self._pending.append(text)
            if len(self._pending) > MOST_PENDING:
                self._dropped += self._pending.popleft().count("\n")
            self._changed.notify()
        return len(text)

    def finish(self, timeout_s: float) -> None:
        """Write what is left, as far as somebody reads it within timeout_s."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            # Not by Python's own buffer: its lock, held in a write that hangs, would hang the end of the process.
            out = self._out.fileno()
            while text := self._next():
                _write(out, text.encode(ENCODING, "replace"))
        except OSError:
            self._gone()

    def _next(self) -> str:
        """What to write next; empty when there is no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._ending)
            dropped, self._dropped = self._dropped, 0
            text = self._pending.popleft() if self._pending else ""
        return f"[llmesh] {dropped} lines dropped: they were not read\n{text}" if dropped else text


def _write(out: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(out, data) :]
        except BlockingIOError:
            # Whoever gave us the pipe made it non-blocking.
            select.select([], [out], [])
