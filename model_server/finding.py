"""Models are looked for in a process of their own: to fetch or to read one may take long, and can't be broken off."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable

from model_server.engine_process import end_with
from model_server.source import ModelSource, SourceError

__all__ = ["apart"]


async def apart(find: Callable[[], ModelSource]) -> ModelSource:
    """What find returns, or raises, in a process that ends with this one, or when this is cancelled.

    find: a function of a module, or a partial one. Raises SourceError, too, if the process ends without an answer.
    """
    command = (sys.executable, "-P", "-m", __name__, str(os.getpid()))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        told, _ = await process.communicate(pickle.dumps(find))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise SourceError(f"what looked for the model ended with {process.returncode}")
    found: ModelSource | Exception = pickle.loads(told)  # noqa: S301 from a process of our own
    if isinstance(found, Exception):
        raise found
    return found


def _main() -> None:
    """Find what is asked for by the process of that id, and tell it."""
    end_with(int(sys.argv[1]))
    # Whatever libraries print is no part of what is told.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    find: Callable[[], ModelSource] = pickle.load(sys.stdin.buffer)  # noqa: S301 from a process of our own
    try:
        found: ModelSource | Exception = find()
    except Exception as err:  # noqa: BLE001 whoever asked raises it
        found = err
    with told:
        pickle.dump(found, told)


if __name__ == "__main__":
    _main()
