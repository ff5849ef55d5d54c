"""Keys whose time passes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from gateway.keys import POLL_S, Keys
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock


async def turn(keys: Keys, clock: FakeClock, span_s: float) -> None:
    """Let the span pass, and the keys be turned over for it."""
    async with aclosing(keys.watch()) as changes:
        change = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        clock.stand_still(span_s)

        async def seen() -> None:
            await clock.pass_(POLL_S)
            assert change.done()

        await eventually(seen)
