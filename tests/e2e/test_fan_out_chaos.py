"""Fan-outs while what they go through dies and returns: gateway, Envoy, tools, rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator

import grpc
import grpc.aio
import pytest

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from tests.e2e.fan import COUNT, FAN, Caller, Fan, caller
from tests.e2e.mesh import RunningMesh, free_port, running_mesh
from tests.e2e.process import Process
from tests.e2e.test_operations import get, says
from tests.e2e.traffic import Traffic
from tests.eventually import eventually

UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE.name, grpc.StatusCode.INTERNAL.name
DENIED, UNIMPLEMENTED = grpc.StatusCode.PERMISSION_DENIED.value[0], grpc.StatusCode.UNIMPLEMENTED.value[0]
LATE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
# What a fan-out may take, and how late the machine may be that tells.
BUDGET_S, LATE_S = 15.0, 5.0
# Beside the rules of the tests' own domain.
NO_FAN = """
  - id: no-fan
    effect: forbid
    applies: {services: [%s]}
    when: 'true'
    reason: not any more
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh(operations=f"127.0.0.1:{free_port()}") as running:
        yield running


@pytest.fixture(autouse=True)
def whole(mesh: RunningMesh) -> None:
    """What a test that failed has left dead lives again."""
    for name in ("gateway", "envoy"):
        if not any(each.alive for each in mesh.processes if each.name == name):
            start(mesh, name)


def process(mesh: RunningMesh, name: str) -> Process:
    [running] = [each for each in mesh.processes if each.name == name and each.alive]
    return running


def start(mesh: RunningMesh, name: str) -> None:
    if name == "gateway":
        mesh.start_gateway()
    else:
        mesh.start_envoy()


def end(mesh: RunningMesh, name: str, how: str) -> None:
    running = process(mesh, name)
    if how == "killed":
        running.kill()
    else:
        running.stop()


async def outcome(call: Awaitable[object]) -> str:
    """How a fan-out ended."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def eight_answer(asking: Caller) -> None:
    codes = await asking.codes("Ask", timeout_s=5)
    assert codes == dict.fromkeys(FAN, 0)


async def nothing_is_left(mesh: RunningMesh, fan: Fan) -> None:
    """Return when no tool answers anybody, and the gateway knows of no fan-out."""

    async def none_is_open() -> None:
        assert fan.open.total() == 0

    await eventually(none_is_open)
    gauges = "fan_outs_running", "fan_out_branches_open", "fan_out_held_bytes", "fan_out_connections"
    await eventually(lambda: says(mesh, "/metrics", *(f"llmesh_{name} 0.0" for name in gauges)), pause_s=1)


async def figures(mesh: RunningMesh) -> dict[str, float]:
    """What the gateway tells of fan-outs."""
    _, body = await asyncio.to_thread(get, mesh, "/metrics")
    told = (line.rpartition(" ") for line in body.splitlines() if line.startswith("llmesh_fan_out"))
    found = {name.removeprefix("llmesh_fan_out"): float(value) for name, _, value in told}
    assert found
    return found


async def are_open(fan: Fan, count: int) -> None:
    async def so_many() -> None:
        assert fan.open.total() == count

    await eventually(so_many)


async def test_metrics_tell_what_runs_and_how_it_ended(mesh: RunningMesh) -> None:
    fan = Fan()
    async with fan.serving(mesh, *FAN), caller(mesh) as asking:
        before = await eventually(lambda: figures(mesh), pause_s=1)
        await eight_answer(asking)
        stream = asking.call("Stream")
        await anext(aiter(stream))

        async def is_told() -> None:
            told = await figures(mesh)
            now = (told["s_running"], told["_branches_open"], told["_connections"])
            assert now == (1, COUNT, 1)

        await eventually(is_told, pause_s=1)
        stream.cancel()
        await nothing_is_left(mesh, fan)
        after = await figures(mesh)

    grown = {name: after[name] - before.get(name, 0) for name in after}
    ended = {name: count for name, count in grown.items() if "total" in name and count}
    assert ended == {
        's_total{end="all_ended"}': 1,
        's_total{end="left"}': 1,
        '_branches_total{code="ok"}': COUNT,
    }


async def test_a_fan_out_whose_time_is_up_tells_what_became_of_each_branch(mesh: RunningMesh) -> None:
    fan = Fan()
    async with fan.serving(mesh, *FAN), caller(mesh) as asking:
        await eventually(lambda: eight_answer(asking))

        async def is_told_in_time() -> None:
            told = await asking.told("Slow", timeout_s=3, completion=pb.COMPLETION_BEST_EFFORT)
            assert told[-1].summary.end == pb.Summary.END_DEADLINE
            assert [each.status.code for message in told for each in message.branches] == [LATE] * COUNT

        # Not each time on a machine that is busy: there is a tenth of a second for it.
        await eventually(is_told_in_time)
        await nothing_is_left(mesh, fan)


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("name", ["gateway", "envoy"])
async def test_fan_outs_end_unavailable_with_what_they_go_through_and_leave_no_branch_at_a_tool(
    mesh: RunningMesh, name: str, how: str
) -> None:
    fan = Fan()
    async with fan.serving(mesh, *FAN), caller(mesh) as asking:
        await eventually(lambda: eight_answer(asking))
        waiting = [asyncio.ensure_future(outcome(asking.told("Slow"))) for _ in range(4)]
        half_told = asking.call("Stream")
        await anext(aiter(half_told))
        reading = asyncio.ensure_future(outcome(_read(half_told)))
        await are_open(fan, 5 * COUNT)
        began_s = time.monotonic()

        await asyncio.to_thread(end, mesh, name, how)

        assert set(await asyncio.gather(*waiting)) == {UNAVAILABLE}
        # What has begun to be answered can only be broken off.
        assert await reading in (UNAVAILABLE, INTERNAL)
        assert time.monotonic() - began_s < 30
        start(mesh, name)
        await eventually(lambda: eight_answer(asking))
        await nothing_is_left(mesh, fan)


async def test_writes_are_never_doubled_and_no_fan_out_is_late_while_all_is_killed_again_and_again(
    mesh: RunningMesh,
) -> None:
    fan = Fan()
    late: list[float] = []
    number = iter(range(1_000_000))
    async with fan.serving(mesh, *FAN), caller(mesh) as asking:

        async def write() -> None:
            began_s = time.monotonic()
            try:
                text = str(next(number)).encode()
                told = await asking.told("Write", text=text, allow_writes=True, timeout_s=BUDGET_S)
                assert told[-1].HasField("summary")
            except grpc.aio.AioRpcError:
                # Not asked again all the time while nobody answers.
                await asyncio.sleep(0.05)
                raise
            finally:
                if time.monotonic() - began_s > BUDGET_S + LATE_S:
                    late.append(time.monotonic() - began_s)

        async with Traffic(write) as traffic:
            for name in ("gateway", "envoy") * 2:
                await asyncio.to_thread(process(mesh, name).kill)
                start(mesh, name)
                await eventually(lambda: eight_answer(asking))
                await traffic.more(20)

        assert set(traffic.outcomes) <= {"OK", UNAVAILABLE, INTERNAL}, traffic.failures
        assert late == []
        assert fan.written.total() > 0
        assert set(fan.written.values()) == {1}
        await nothing_is_left(mesh, fan)


async def test_tools_that_join_and_leave_fail_no_branch_of_others(mesh: RunningMesh) -> None:
    staying, moving = Fan(), Fan()
    seen: set[str] = set()
    async with staying.serving(mesh, *FAN[:6]), caller(mesh) as asking:

        async def ask() -> None:
            codes = await asking.codes("Ask")
            assert {tool: codes.pop(tool, None) for tool in FAN[:6]} == dict.fromkeys(FAN[:6], 0)
            # Who leaves while they are asked has no endpoint any more, then is not there, as for calls.
            assert set(codes.values()) <= {0, UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE.value[0]}
            seen.update(tool for tool, code in codes.items() if code == 0)

        async with Traffic(ask) as traffic:
            for _ in range(2):
                async with moving.serving(mesh, *FAN[6:]):
                    await traffic.more(50)
                    assert seen == set(FAN[6:])
                    seen.clear()
                await traffic.more(50)
        assert traffic.failures == {}

        async def they_are_gone() -> None:
            assert set(await asking.codes("Ask")) == set(FAN[:6])

        await eventually(they_are_gone)
        await nothing_is_left(mesh, staying)


async def test_a_branch_that_a_rule_denies_from_now_on_is_denied_and_no_other_fails(mesh: RunningMesh) -> None:
    rules = mesh.folder / "policies/domains/testing.yaml"
    before, fan = rules.read_text(), Fan()
    # What the one branch ended with, in order; None where it was not asked.
    ends: list[int | None] = []
    async with fan.serving(mesh, *FAN), caller(mesh) as asking:

        async def ask() -> None:
            told = await asking.told("Ask")
            codes = {each.tool: each.status.code for message in told for each in message.branches}
            end = codes.pop(FAN[0], None)
            assert codes == dict.fromkeys(FAN[1:], 0)
            assert (end is None) is (told[-1].summary.denied_count == 1)
            ends.append(end)

        async def last_is(wanted: int | None) -> None:
            assert ends[-1] == wanted

        try:
            async with Traffic(ask, at_once=1) as traffic:
                rules.write_text(before + NO_FAN % FAN[0])
                await eventually(lambda: last_is(None))
                denied_at = len(ends)
                await traffic.more(50)
                assert ends[denied_at:] == [None] * (len(ends) - denied_at)
                rules.write_text(before)
                await eventually(lambda: last_is(0))
        finally:
            rules.write_text(before)
        assert traffic.failures == {}
        assert set(ends) <= {0, None, DENIED}
        await nothing_is_left(mesh, fan)


async def _read(call: grpc.aio.UnaryStreamCall[pb.FanOutRequest, pb.FanOutResponse]) -> None:
    async for _ in call:
        pass
