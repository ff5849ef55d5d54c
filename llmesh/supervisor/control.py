"""How a running supervisor is told to restart programs: by lines of JSON on run/supervisor.sock.

One request a connection: `{"restart": [NAME, ...]}`, no name for all. A line
answers for each program when it is done; the last one is `{"done": true}`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import cast

from llmesh.home import Home
from llmesh.problem import Problem

REQUEST_WITHIN_S = 5.0
# A program has to become ready, and the one before it to end.
ANSWER_WITHIN_S = 120.0


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
        # Whoever asked may leave; what was begun goes on.
        with suppress(OSError, TimeoutError):
            await _answer(reader, writer, restart)
        writer.close()

    home.control_socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, home.control_socket)
    try:
        yield
    finally:
        server.close()
        home.control_socket.unlink(missing_ok=True)


async def _answer(reader: StreamReader, writer: StreamWriter, restart: Restart) -> None:
    async with asyncio.timeout(REQUEST_WITHIN_S):
        names = _names(await reader.readline())
    if names is None:
        _tell(writer, {"problem": "this is no request that the supervisor knows", "step": "update llmesh"})
        return
    try:
        async for each in restart(names):
            _tell(writer, asdict(each))
    except Problem as problem:
        _tell(writer, {"problem": problem.message, "step": problem.step})
    else:
        _tell(writer, {"done": True})
    await writer.drain()


def _names(line: bytes) -> list[str] | None:
    """The names asked for; None if it is no request."""
    try:
        names = json.loads(line)["restart"]
    except (ValueError, LookupError, TypeError):
        return None
    return cast("list[str]", names) if isinstance(names, list) else None


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
