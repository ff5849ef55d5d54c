"""What each process of an engine does first: it never outlives whoever started it.

vLLM loads this as one of its plugins in the process of the engine and in those
of its workers. Without it, a server that is killed leaves them behind.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

__all__ = ["end_with_parent"]

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """In a process of an engine: be killed when its parent ends, however that does. Elsewhere: nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request was made.
    if os.getppid() != parent.pid:
        os._exit(1)
    # A group of its own: SIGTERM to the server's group is the server's, which lets the engine finish.
    os.setpgid(0, 0)
