"""A log that is written by a thread of its own: a disk that hangs holds up no process and no restart."""

from __future__ import annotations

import threading
from collections import deque

from llmesh.supervisor.logs import LogFile

# What one log may hold of what the disk has not taken yet.
MOST_PENDING_BYTES = 8 << 20
CLOSE_WITHIN_S = 1.0


class LateLog:
    """Lines for a file, in their order. Those that come while too many wait are lost, and their number is told."""

    def __init__(self, file: LogFile) -> None:
        """Write to this file, which is closed with the log."""
        self._file = file
        self._pending = deque[str]()
        self._pending_bytes = 0
        self._lost = 0
        self._closing = False
        self._changed = threading.Condition()
        # A daemon: one that hangs in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have one line appended. Never waits for the disk."""
        with self._changed:
            if self._pending_bytes + len(line) > MOST_PENDING_BYTES:
                self._lost += 1
                return
            self._pending.append(line)
            self._pending_bytes += len(line)
            self._changed.notify()

    def close(self) -> None:
        """Write what is left, as far as the disk takes it soon."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while lines := self._next():
            for line in lines:
                self._file.write(line)
        self._file.close()

    def _next(self) -> list[str]:
        """What to write next; empty when there is no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            lines, lost = list(self._pending), self._lost
            self._pending.clear()
            self._pending_bytes = self._lost = 0
        return [*lines, f"[llmesh] {lost} lines lost: the disk took no more"] if lost else lines
