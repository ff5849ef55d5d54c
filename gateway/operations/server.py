"""The gateway's side of the operations port: a little HTTP on a socket that only Envoy opens.

It answers what Envoy's own admin socket answers, by the same paths, so that
Envoy asks that one where the gateway is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from gateway.clock import Clock
from gateway.operations.figures import METRICS, Figures
from gateway.operations.metrics import Metrics
from gateway.operations.status import Facts, status
from llmesh.admin import STATUS_PAGE
from llmesh.home import Home

log = logging.getLogger(__name__)

HEAD_MAX_BYTES = 16 * 1024
READ_TIMEOUT_S = 5.0
READY = "/ready"


@asynccontextmanager
async def serve_operations(home: Home, *, metrics: Metrics, facts: Facts, clock: Clock) -> AsyncGenerator[None]:
    """Answer on the home's operations socket for as long as the block lasts."""

    async def ready() -> bytes:
        return b"LIVE\n"

    async def told() -> bytes:
        return json.dumps(status(facts)).encode()

    figures = Figures(home, metrics, clock=clock)
    pages = {METRICS: figures.text, READY: ready, STATUS_PAGE: told}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer, pages=pages)

    # One gateway may take over from another: whoever asks finds the one or the other.
    path = home.operations_socket
    own = path.with_name(f".{path.stem}-{os.getpid()}.sock")
    own.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(answer, own, limit=HEAD_MAX_BYTES)
    own.chmod(0o600)
    own.replace(path)
    async with server:
        try:
            yield
        finally:
            figures.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pages: Mapping[str, Callable[[], Awaitable[bytes]]]
) -> None:
    """One request a connection: nobody asks more often than every second."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.decode("ascii", "replace").partition(" ")
        page = pages.get(rest.partition(" ")[0])
        if method != "GET" or page is None:
            writer.write(_response("404 Not Found", b""))
        else:
            writer.write(_response("200 OK", await page()))
        async with asyncio.timeout(READ_TIMEOUT_S):
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        log.debug("operations request broken off")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
