"""Tools that break the protocol while others answer: each ends as it must, and nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import gzip
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import h2.errors
import pytest

from gateway.fanout import lines
from gateway.fanout.room import Room
from gateway.snapshot import service
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from tests.eventually import eventually
from tests.gateway.fanout.behaviours import answer_late
from tests.gateway.fanout.world import EIGHT, World, passages, world
from tests.hostile.connection import grpc_frame
from tests.hostile.wire import Call, Misbehave, drip, hang_up, misbehaving, overstate, reset

GOOD = grpc_frame(passages(("good", 1)))
OK = ("grpc-status", "0")


async def half_close(call: Call) -> None:
    """End the answer where trailers belong."""
    await call.begin()
    await call.send(GOOD, ends=True)


async def half_a_message(call: Call) -> None:
    await call.begin()
    await call.send(GOOD[:-1])
    await call.trail(OK)


async def no_message(call: Call) -> None:
    await call.begin()
    await call.trail(OK)


async def two_messages(call: Call) -> None:
    await call.begin()
    await call.send(GOOD + GOOD)
    await call.trail(OK)


async def no_status(call: Call) -> None:
    await call.begin()
    await call.send(GOOD)
    await call.trail(("x-nothing", "at all"))


async def a_bomb(call: Call) -> None:
    """Say in 64 KB what unpacks to 64 MB."""
    packed = gzip.compress(bytes(64 << 20))
    await call.begin(("grpc-encoding", "gzip"))
    await call.send(b"\x01" + len(packed).to_bytes(4) + packed)
    await call.trail(OK)


async def go_away(call: Call) -> None:
    """Take no call of this connection, the one under way included."""
    await call.leave(last=0)


async def go_away_half_way(call: Call) -> None:
    """Answer half, then end the connection with an error."""
    await call.begin()
    await call.send(GOOD[:10])
    await call.leave(last=call.stream, error=h2.errors.ErrorCodes.INTERNAL_ERROR)
    call.writer.close()


async def go_away_and_answer(call: Call) -> None:
    """As a server does that stops: what is under way is answered."""
    await call.begin()
    await call.send(GOOD)
    await call.trail(OK)
    await call.leave(last=call.stream)


async def reset_half_way(call: Call) -> None:
    await call.begin()
    await call.send(GOOD[:10])
    await reset(call)


async def hang_up_half_way(call: Call) -> None:
    await call.begin()
    await call.send(GOOD[:10])
    await hang_up(call)


async def a_megabyte_of_trailers(call: Call) -> None:
    await call.begin()
    await call.send(GOOD)
    await call.trail(OK, *((f"x-{number}", "x" * 4096) for number in range(256)))


def trails(*fields: tuple[str, str | bytes]) -> Misbehave:
    """Answer with nothing but trailers."""

    async def answer(call: Call) -> None:
        await call.begin()
        await call.trail(*fields)

    return answer


UNKNOWN, LATE, UNAVAILABLE = 2, 4, 14
INTERNAL, UNIMPLEMENTED = 13, 12
# What each does, and how its branch may end.
BREAKS: dict[str, tuple[Misbehave, set[int]]] = {
    "HalfClose": (half_close, {UNKNOWN, INTERNAL}),
    "HalfAMessage": (half_a_message, {INTERNAL}),
    "NoMessage": (no_message, {INTERNAL}),
    "TwoMessages": (two_messages, {INTERNAL, LATE}),
    "NoStatus": (no_status, {UNKNOWN, INTERNAL}),
    "Bomb": (a_bomb, {INTERNAL, UNIMPLEMENTED}),
    "GoAway": (go_away, {UNAVAILABLE}),
    "GoAwayHalfWay": (go_away_half_way, {UNAVAILABLE, INTERNAL}),
    "GoAwayAndAnswer": (go_away_and_answer, {0}),
    "Reset": (reset, {UNAVAILABLE, INTERNAL}),
    "ResetHalfWay": (reset_half_way, {UNAVAILABLE, INTERNAL}),
    "HangUp": (hang_up, {UNAVAILABLE}),
    "HangUpHalfWay": (hang_up_half_way, {UNAVAILABLE, INTERNAL}),
    "Trailers": (a_megabyte_of_trailers, {UNAVAILABLE, INTERNAL, 8}),
    "Overstate": (overstate, {8}),
    "Drip": (drip, {LATE}),
    "NoCode": (trails(("grpc-status", "99")), {UNKNOWN}),
    "NegativeCode": (trails(("grpc-status", "-1")), {UNKNOWN, INTERNAL}),
    "CodeOfLetters": (trails(("grpc-status", "seven")), {UNKNOWN, INTERNAL}),
    "NoText": (trails(("grpc-status", "7"), ("grpc-message", "%ff%fe%00")), {7}),
    "NoDetails": (trails(("grpc-status", "7"), ("grpc-status-details-bin", "!!not base64!!")), {7, UNKNOWN, INTERNAL}),
    "OtherDetails": (trails(("grpc-status", "7"), ("grpc-status-details-bin", "CAU=")), {7}),
    "MuchText": (trails(("grpc-status", "7"), ("grpc-message", "x" * 40_000)), {7}),
}


async def test_each_way_to_break_a_branch_ends_that_branch_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_late(monkeypatch)
    monkeypatch.setattr(lines, "IDLE_S", 0.1)
    monkeypatch.setattr(service, "IDLE_S", 1)
    async with world() as running, AsyncExitStack() as servers:
        tools = [running.tool(EIGHT[0])]
        for name, (misbehave, _) in BREAKS.items():
            path = str(running.envoy.folder / f"{name}.sock")
            await servers.enter_async_context(misbehaving(path, misbehave))
            tools.append(running.tool(f"acme.support.v1.{name}", address=f"unix:{path}"))
        await running.publish(*tools)
        await running.fan_out(selector=pb.Selector(tools=[EIGHT[0]]))
        before = await footprint(running)

        told = await running.fan_out(completion=pb.COMPLETION_BEST_EFFORT, timeout_s=20)

        assert told.codes.pop("Tool0") == 0
        ended = {name: told.codes[name] for name in BREAKS}
        wrong = {name: code for name, code in ended.items() if code not in BREAKS[name][1]}
        assert wrong == {}, {name: told.branches[f"acme.support.v1.{name}/Retrieve"].status for name in wrong}
        again = await running.fan_out(selector=pb.Selector(tools=[EIGHT[0]]))
        assert again.codes == {"Tool0": 0}
        await returns_to(running, before)


async def footprint(running: World) -> Counter[str]:
    """What this process has of tasks, by what they run, and of open files, once no line is open."""

    async def quiet() -> Counter[str]:
        assert (running.legs.count, running.legs.lines.count, running.counts.running) == (0, 0, 0)
        # A call that failed stands in a cycle with its traceback, and keeps its connection open until that is found.
        gc.collect()
        tasks = Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
        return tasks + Counter(files=sum(1 for _ in Path("/proc/self/fd").iterdir()))

    return await eventually(quiet, within_s=30)


async def returns_to(running: World, before: Counter[str]) -> None:
    """Return when there is no more of anything than before, and nothing is counted for anybody."""

    async def as_before() -> None:
        assert await footprint(running) - before == Counter()
        assert repr(running.legs.room) == repr(Room())

    await eventually(as_before, within_s=30)
