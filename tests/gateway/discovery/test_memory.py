"""What contracts of megabytes take of memory is handed back."""

from __future__ import annotations

import gc
import os
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.reading.candidate import Candidate
from tests.eventually import eventually
from tests.gateway.discovery.world import World, at, serving, small_world
from tests.hostile.cases import BIG_BYTES, all_in_one
from tests.hostile.contracts import large

ROUNDS = 2
AT_ONCE = 2
# Less than what is seen in all rounds would take if it were kept.
STAYS_BYTES = 48 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def candidates() -> int:
    gc.collect()
    return sum(isinstance(each, Candidate) for each in gc.get_objects())


async def refuse_some(world: World, number: int) -> None:
    """Let large contracts that nobody owns be seen, and be gone."""
    endpoints = [at(world.folder, f"tool{number}-{count}") for count in range(AT_ONCE)]
    files = large("big", BIG_BYTES)
    async with AsyncExitStack() as servers:
        for endpoint in endpoints:
            await servers.enter_async_context(serving(endpoint.address, all_in_one(*files)))
        world.source.name(*endpoints)
        for endpoint in endpoints:
            assert (await world.failure(endpoint.address, "acme.testing.big.v1.Bad")).reason == "NO_OWNER"
        world.source.name()
        await world.until(lambda catalog: not catalog.reports)


async def test_what_large_contracts_took_is_given_back() -> None:
    held = candidates()
    async with small_world() as world:
        await refuse_some(world, 0)
        before = resident_bytes()
        for number in range(ROUNDS):
            await refuse_some(world, number + 1)

        async def given_back() -> None:
            assert candidates() <= held
            assert resident_bytes() < before + STAYS_BYTES

        await eventually(given_back, pause_s=0.5)
