"""Watches that stay open take nothing from other callers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any as Untyped

import grpc
from grpc_health.v1 import health_pb2

from tests.e2e.mesh import OWNER, READER, RunningMesh

# A connection has at most 256 calls at once.
CONNECTIONS, WATCHES = 5, 1100
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
ASKED = health_pb2.HealthCheckRequest().SerializeToString()


def serves(answer: bytes) -> bool:
    """Whether a health answer says so."""
    return health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_one_callers_watches_leave_the_others_an_answer(mesh: RunningMesh) -> None:
    async with AsyncExitStack() as stack:
        channels: list[Untyped] = [
            await stack.enter_async_context(grpc.aio.insecure_channel(mesh.address, options=OWN_CONNECTION))
            for _ in range(CONNECTIONS + 1)
        ]
        *watching, other = channels
        watch = [channel.unary_stream("/grpc.health.v1.Health/Watch") for channel in watching]
        greedy = mesh.bearer(READER)
        watches = [watch[number % CONNECTIONS](ASKED, metadata=greedy) for number in range(WATCHES)]
        answers = await asyncio.gather(*(each.read() for each in watches))
        assert all(serves(answer) for answer in answers)

        check = other.unary_unary("/grpc.health.v1.Health/Check")
        for _ in range(20):
            assert serves(await check(ASKED, metadata=mesh.bearer(OWNER), timeout=60))

        for each in watches:
            each.cancel()
