"""A process of the workshop's: does what it is given, one piece of work after another, and ends with whom it is for."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import BinaryIO

from llmesh.errors import MeshError
from model_server.engine_process import end_with

__all__ = ["CPU_S", "LENGTH", "SPENT"]

# What a piece of work may take of a processor, and the process of memory. Whoever takes more is killed.
CPU_S = 3.0
MEMORY_BYTES = 2 << 30
# How a process ends that has no more memory, or no more room for calls in calls.
NO_ROOM = 3
# What asyncio tells of processes that ended for what they took: SIGABRT is protobuf's and protovalidate's end where
# they get no memory.
SPENT = (-signal.SIGPROF, -signal.SIGABRT, NO_ROOM)
# Before an answer: of how many bytes it is.
LENGTH = struct.Struct("<Q")


def main() -> None:
    """Work until nobody gives any more."""
    end_with(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Nothing else may be written where answers are.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while _serve(sys.stdin.buffer, answers):
        pass


def _serve(given: BinaryIO, answers: BinaryIO) -> bool:
    """Do the next piece of work; whether there was one."""
    try:
        work, arguments = pickle.load(given)  # noqa: S301 of our own process
    except EOFError:
        return False
    # Its signal ends a process that does not ask for another end.
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    answer = pickle.dumps(_done(work, arguments))
    signal.setitimer(signal.ITIMER_PROF, 0)
    answers.write(LENGTH.pack(len(answer)) + answer)
    answers.flush()
    return True


def _done(work: Callable[..., object], arguments: tuple[object, ...]) -> tuple[bool, object]:
    try:
        return True, work(*arguments)
    except MeshError as err:
        return False, err
    except (MemoryError, RecursionError):
        os._exit(NO_ROOM)
    # Whoever asked raises it. Its own words may be of what a caller sent, which no log may tell.
    except Exception as err:  # noqa: BLE001
        frames = [f"{each.filename}:{each.lineno} in {each.name}" for each in traceback.extract_tb(err.__traceback__)]
        return False, RuntimeError("\n".join([type(err).__name__, *frames]))


if __name__ == "__main__":
    main()
