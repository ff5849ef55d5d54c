"""What Envoy says of itself, on its admin socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

ANSWER_TIMEOUT_S = 2.0
_OK = b" 200 "


async def ask(admin: Path, page: str) -> bytes | None:
    """The page of Envoy's admin socket; None if it doesn't answer in time, or not with it."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(admin)
            try:
                # HTTP/1.0: the answer ends with the connection, and comes in no chunks.
                writer.write(f"GET {page} HTTP/1.0\r\nhost: admin\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return body if _OK in head.partition(b"\r\n")[0] else None
