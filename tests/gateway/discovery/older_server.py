"""A server with v1alpha reflection alone, as a process of its own: python -m ... unix:/path.sock."""

from __future__ import annotations

import asyncio
import sys

from tests.gateway.discovery.world import V1ALPHA, contract, honest, serving


async def main(address: str) -> None:
    """Serve until killed; prints a line once it does."""
    async with serving(address, honest(contract()), paths=[V1ALPHA]) as server:
        print("serving", flush=True)  # noqa: T201 - its parent waits for it
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
