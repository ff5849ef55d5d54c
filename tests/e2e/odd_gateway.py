"""A gateway whose disk hangs and whose wall clock is wrong for as long as files say so.

`odd_gateway.py FOLDER ...`. FOLDER/hang: every fsync waits until it is gone. FOLDER/step: seconds by which
the wall clock is wrong. All else is the real gateway.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from gateway.__main__ import main

folder = Path(sys.argv.pop(1))
fsync, unix_s = os.fsync, time.time


def hanging_fsync(handle: int) -> None:
    """As os.fsync, when the disk answers."""
    while (folder / "hang").exists():
        time.sleep(0.02)
    fsync(handle)


def stepped_time() -> float:
    """As time.time, by a clock that was set."""
    try:
        return unix_s() + float((folder / "step").read_text())
    except FileNotFoundError:
        return unix_s()


os.fsync, time.time = hanging_fsync, stepped_time
main()
