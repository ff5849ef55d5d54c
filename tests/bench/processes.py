"""Programs that are measured, and what they take of the processor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmesh.supervisor import launch

STOP_TIMEOUT_S = 10


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in its own code and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(argv: Sequence[str], *, log: Path, cwd: Path | None = None) -> Generator[int]:
    """A program that runs for as long as the block, and no longer than we do: its process id. log: where it speaks."""
    tied = (sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid()), *argv)
    with log.open("wb") as said:
        process = subprocess.Popen(tied, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
