"""All hostile servers in one process: python -m tests.hostile.serve FOLDER."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from tests.hostile.cases import cases


async def main(folder: str) -> None:
    """Serve until killed; prints a line once all do."""
    async with AsyncExitStack() as servers:
        for case in cases():
            await servers.enter_async_context(case.serve(f"{folder}/{case.name}.sock"))
        print("serving", flush=True)  # noqa: T201 - its parent waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
