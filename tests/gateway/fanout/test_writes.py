"""A write comes to its tool once, whatever the tool says of it, through the real Envoy."""

from __future__ import annotations

from collections import Counter

import h2.errors
import pytest

from tests.eventually import eventually
from tests.gateway.fanout.world import OPEN, WRITE, rpc, world
from tests.hostile.wire import Call, Misbehave, hang_up, misbehaving, reset

TOOL = "acme.support.v1.Denies"
READS, WRITES, STREAMS = (f"/{TOOL}/{name}" for name in ("Read", "Write", "StreamWrites"))
TIMES = 5


async def refuse(call: Call) -> None:
    """Say that the call was not looked at, and may be sent again."""
    call.connection.reset_stream(call.stream, h2.errors.ErrorCodes.REFUSED_STREAM)
    await call.flush()


async def go_away(call: Call) -> None:
    """Say so of all calls of the connection."""
    await call.leave(last=0)


@pytest.mark.parametrize("deny", [refuse, go_away, reset, hang_up])
async def test_a_write_is_sent_once_though_the_tool_says_that_it_has_not_looked_at_it(deny: Misbehave) -> None:
    came = Counter[str]()

    async def answer(call: Call) -> None:
        came[call.path] += 1
        await deny(call)

    async with world() as running:
        path = str(running.envoy.folder / "denies.sock")
        methods = rpc("Read"), rpc("Write", effect=WRITE), rpc("StreamWrites", effect=WRITE, streams=True)
        async with misbehaving(path, answer):
            await running.publish(running.tool(TOOL, *methods, address=f"unix:{path}"), policy=OPEN)
            most = Counter[str]()

            async def asked() -> None:
                nonlocal most
                before = came.copy()
                told = await running.fan_out(allow_writes=True)
                assert 0 not in {branch.status.code for branch in told.branches.values()}
                most |= came - before

            async def resent() -> None:
                await asked()
                assert most[READS] > 1

            for _ in range(TIMES):
                await asked()
            # A read is sent again, unless its tool has failed so often that it is let rest.
            await eventually(resent)

    assert (most[WRITES], most[STREAMS]) == (1, 1)
