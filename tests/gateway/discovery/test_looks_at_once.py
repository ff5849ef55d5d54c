"""No more endpoints are looked at at one time than the mesh file's `limits.looks_at_once` says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.reading.reflect import Limits
from tests.eventually import eventually
from tests.gateway.discovery.world import WAIT_S, Answer, at, contract, honest, serving, small_world

AT_ONCE, ENDPOINTS = 3, 9


@dataclass(slots=True)
class Held:
    """Looks that wait to be let go on, and the most there were."""

    waiting: list[asyncio.Event] = field(default_factory=list[asyncio.Event])
    begun: int = 0
    most: int = 0

    def before(self, answer: Answer) -> Answer:
        """The answer, of which each look's first waits."""

        async def wait(request: ServerReflectionRequest) -> ServerReflectionResponse:
            if request.HasField("list_services"):
                go_on = asyncio.Event()
                self.waiting.append(go_on)
                self.begun += 1
                self.most = max(self.most, len(self.waiting))
                await go_on.wait()
            return await answer(request)

        return wait


async def test_no_more_endpoints_are_looked_at_at_one_time_than_the_limit() -> None:
    held = Held()
    # Nobody leaves the quick lane.
    limits = Limits(at_once=AT_ONCE, quick_s=600, timeout_s=600)
    async with small_world(limits) as world, AsyncExitStack() as servers:
        endpoints = [at(world.folder, f"tool{number}") for number in range(ENDPOINTS)]
        for number, endpoint in enumerate(endpoints):
            answer = held.before(honest(contract(service=f"S{number}")))
            await servers.enter_async_context(serving(endpoint.address, answer))
        world.source.name(*endpoints)
        await world.until(lambda each: len(each.reports) == ENDPOINTS)
        for done in range(ENDPOINTS):
            due = min(done + AT_ONCE, ENDPOINTS)

            async def begun(due: int = due) -> None:
                assert held.begun == due

            await eventually(begun, within_s=WAIT_S)
            held.waiting.pop(0).set()
        await world.until(lambda each: len(each.tools) == ENDPOINTS)
    assert held.most == AT_ONCE
