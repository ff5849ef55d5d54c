"""Become another program that ends when the supervisor ends, however that is killed.

Run as a script, `python -I -S launch.py PARENT_PID PROGRAM ARGS...`: a function
run between fork and exec would do the same, but isn't safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel to kill this process with its parent, then exec the program, its files closed to others."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request was made.
    if os.getppid() != parent:
        sys.exit(1)
    # What programs of the mesh write, the log of calls first, is for its owner alone.
    os.umask(0o077)
    try:
        os.execvp(program[0], program)  # noqa: S606 what the supervisor was told to run
    except OSError as err:
        sys.stderr.write(f"cannot run `{program[0]}`: {err.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
