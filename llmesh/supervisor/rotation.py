"""Putting full log files aside: NAME becomes NAME.1, which was NAME.2 before, and so on.

The supervisor writes the logs of processes itself (`logs`). The call log is
Envoy's, which goes on writing to the file that was put aside until it is told
to open the log anew: so no line is lost, however long that takes.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from llmesh.admin import ask_socket
from llmesh.home import Home

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
REOPEN = "/reopen_logs"


def put_aside(path: Path, keep: int) -> None:
    """Make room for a new file at the path; of the earlier ones, so many are kept. Raises OSError.

    FileNotFoundError if there is nothing to put aside; the earlier ones stay as they are.
    """
    path.stat()
    for number in range(keep, 1, -1):
        with suppress(FileNotFoundError):
            _earlier(path, number - 1).replace(_earlier(path, number))
    path.replace(_earlier(path, 1))


def _earlier(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


async def rotate_calls(home: Home, *, rotate_bytes: int, keep: int, look_every_s: float = LOOK_EVERY_S) -> None:
    """Put the call log aside whenever it is full, until cancelled."""
    while True:
        await asyncio.to_thread(rotate_calls_once, home, rotate_bytes=rotate_bytes, keep=keep)
        await asyncio.sleep(look_every_s)


def rotate_calls_once(home: Home, *, rotate_bytes: int, keep: int) -> None:
    """Put the call log aside if it is full, and have Envoy open it anew."""
    try:
        if home.call_log.stat().st_size < rotate_bytes:
            return
        put_aside(home.call_log, keep)
    except FileNotFoundError:
        if not _earlier(home.call_log, 1).exists():
            return
        # Envoy has not been reached since it was put aside.
    except OSError as err:
        log.warning("call log could not be put aside", extra={"path": str(home.call_log), "error": str(err)})
        return
    ask_socket(home.admin_socket, REOPEN, method="POST")
