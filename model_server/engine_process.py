"""What each process of the server's own does first: it never outlives whoever started it.

vLLM loads this as one of its plugins in the process of the engine and in those
of its workers. Without it, a server that is killed leaves them behind.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

__all__ = ["end_with", "end_with_parent"]

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """In a process of an engine: be killed when its parent ends, however that does. Elsewhere: nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)


def end_with(parent: int) -> None:
    """Be killed when the parent, this process's own by its id, ends, however that does."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the request was made.
    if os.getppid() != parent:
        os._exit(1)
    # A group of its own: SIGTERM to the server's group is the server's, which lets what it has begun finish.
    os.setpgid(0, 0)
