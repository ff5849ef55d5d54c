"""One program of a real mesh, which ends with the tests however those end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmesh.supervisor import launch

STOP_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Process:
    """A program: started at once. What it says goes to the log."""

    name: str
    argv: Sequence[str]
    folder: Path
    log: Path
    env: Mapping[str, str]
    _popen: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Start it, such that the kernel kills it with us."""
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LLMESH_TOKEN")}
        tied = (sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid()), *self.argv)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                tied, cwd=self.folder, env={**inherited, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._popen.kill()
        self._popen.wait(KILL_TIMEOUT_S)

    def wait(self) -> int:
        """Wait until it has ended; its exit status."""
        return self._popen.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to end, and wait until it has; its exit status."""
        if self.alive:
            self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def said(self) -> str:
        """All it has said."""
        return self.log.read_text(errors="replace")
