"""How a running supervisor is told to restart programs: by lines of JSON on run/supervisor.sock.

One request a connection: `{"restart": [NAME, ...]}`, no name for all. A line
answers for each program when it is done; the last one is `{"done": true}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import cast

from llmesh.home import Home
from llmesh.problem import Problem

log = logging.getLogger(__name__)

REQUEST_WITHIN_S = 5.0
# A program has to be prepared, to become ready, and the one before it to end; another restart may come first.
ANSWER_WITHIN_S = 330.0
LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Restarted:
    """What became of one program: problem says why it was not replaced, empty if it was; step what to do then."""

    name: str
    problem: str = ""
    step: str = ""


Restart = Callable[[Sequence[str]], AsyncIterator[Restarted]]


@asynccontextmanager
async def serve_control(home: Home, restart: Restart) -> AsyncGenerator[None]:
    """Take requests for as long as the block lasts."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await _answer(reader, writer, restart)
        # Whoever asked may have left; what was begun went on.
        with suppress(OSError):
            await writer.drain()
        writer.close()

    home.control_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, home.control_socket, limit=LINE_BYTES)
    try:
        yield
    finally:
        server.close()
        home.control_socket.unlink(missing_ok=True)


async def _answer(reader: StreamReader, writer: StreamWriter, restart: Restart) -> None:
    try:
        async with asyncio.timeout(REQUEST_WITHIN_S):
            line = await reader.readline()
    except OSError:
        # TimeoutError too: nobody asks.
        return
    except ValueError:
        _tell(writer, {"problem": f"the request is longer than {LINE_BYTES} bytes", "step": "name fewer at once"})
        return
    names = _names(line)
    if names is None:
        _tell(writer, {"problem": "this is no request that the supervisor knows", "step": "update llmesh"})
        return
    try:
        async for each in restart(names):
            _tell(writer, asdict(each))
    except Problem as problem:
        _tell(writer, {"problem": problem.message, "step": problem.step})
    except Exception as err:
        log.exception("restart failed", extra={"names": names})
        _tell(writer, {"problem": f"the restart failed: {err!r}", "step": "see how it is: llmesh status"})
    else:
        _tell(writer, {"done": True})


def _names(line: bytes) -> list[str] | None:
    """The names asked for; None if it is no request."""
    try:
        names = json.loads(line)["restart"]
    except (ValueError, LookupError, TypeError):
        return None
    whole = isinstance(names, list) and all(isinstance(name, str) for name in cast("list[object]", names))
    return cast("list[str]", names) if whole else None


def _tell(writer: StreamWriter, fact: object) -> None:
    writer.write(json.dumps(fact).encode() + b"\n")


def ask_restart(home: Home, names: Sequence[str]) -> Iterator[Restarted]:
    """Have the supervisor here restart programs, or all; each as it is done. Raises Problem."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_WITHIN_S)
        try:
            connection.connect(str(home.control_socket))
            connection.sendall(json.dumps({"restart": list(names)}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                for line in answers:
                    fact = json.loads(line)
                    if fact.get("done"):
                        return
                    if "name" not in fact:
                        raise Problem(fact["problem"], fact["step"])
                    yield Restarted(**fact)
        except (FileNotFoundError, ConnectionRefusedError) as err:
            raise Problem("no mesh is up here", "start one: llmesh up") from err
        except OSError as err:
            raise Problem(f"the supervisor does not answer: {err}", "see how it is: llmesh status") from err
    raise Problem("the supervisor ended before it was done", "see how it is: llmesh status")
