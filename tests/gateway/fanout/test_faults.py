"""Tools that fail, hang, lie and flood, callers that leave, and what becomes of everybody else's branches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest

from gateway.blocks.words import Block, CallerId, Kind, Target
from gateway.fanout import room
from gateway.snapshot import fanout as snapshot
from gateway.snapshot.blocks import Surroundings
from gateway.snapshot.build import blocking, build, build_blocks
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.retrieval.v1.retrieval_pb2 import Passage, RetrieveRequest, RetrieveResponse
from tests.envoy import bearer, token
from tests.eventually import eventually
from tests.gateway.fanout.behaviours import answer_late, fails
from tests.gateway.fanout.world import (
    EIGHT,
    OPEN,
    WRITE,
    Behaviour,
    Streaming,
    any_of,
    eight,
    hang,
    passages,
    rpc,
    told_of,
    world,
)

UNAVAILABLE, LATE = grpc.StatusCode.UNAVAILABLE.value[0], grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
INTERNAL, EXHAUSTED = grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def too_large(_data: bytes, _context: object) -> bytes:
    return RetrieveResponse(passages=[Passage(text="x" * (17 << 20))]).SerializeToString()


async def lies(_data: bytes, _context: object) -> bytes:
    return b"\xff\xff"


async def many_trailers(_data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    context.set_trailing_metadata(tuple((f"x-trailer-{index}", "x" * 4096) for index in range(256)))
    return passages(("one", 1))


async def test_what_goes_wrong_with_some_branches_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_late(monkeypatch)
    async with world() as running:
        dead = running.tool("acme.support.v1.Dead", address="unix:/nowhere/dead.sock")
        await running.publish(*(running.tool(name) for name in EIGHT), dead)
        await running.fan_out(selector=pb.Selector(tools=EIGHT))
        bad = {"Tool1": too_large, "Tool2": lies, "Tool3": many_trailers, "Tool4": hang}
        for name, behaviour in bad.items():
            running.tools.behaviours[f"/acme.support.v1.{name}/Retrieve"] = behaviour
        running.tools.behaviours[f"/{EIGHT[5]}/Retrieve"] = fails(grpc.StatusCode.PERMISSION_DENIED)

        told = await running.fan_out(completion=pb.COMPLETION_BEST_EFFORT, timeout_s=10)

        codes = told.codes
        assert [codes[f"Tool{index}"] for index in (0, 6, 7)] == [0, 0, 0]
        assert codes["Tool2"] == INTERNAL
        assert codes["Tool4"] == LATE
        assert codes["Tool5"] == grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert codes["Dead"] == UNAVAILABLE
        assert codes["Tool1"] not in (0, LATE)
        assert codes["Tool3"] not in (0, LATE)
        again = await running.fan_out(selector=pb.Selector(tools=[EIGHT[0]]))
        assert again.codes == {"Tool0": 0}
        await running.released()


async def test_a_blocked_tools_branch_is_refused_as_its_call_would_be() -> None:
    async with eight() as running:
        block = Block("b-1", Target(Kind.TOOL, EIGHT[0]), "on fire", CallerId("corp", "pia"), at_us=0)
        tools, policy = running.envoy.served or ({}, running.policy)
        blocked = build_blocks([block], Surroundings({}, tools.keys(), {}))
        await running.envoy.publish_resources(blocking(build(tools, policy), blocked))

        told = await running.fan_out()

        branch = told.branches[f"{EIGHT[0]}/Retrieve"]
        alone = await running.envoy.call(f"/{EIGHT[0]}/Retrieve")
        assert alone.status
        assert (branch.status.code, branch.status.message) == (alone.code.value[0], alone.message)
        assert [each.type_url for each in branch.status.details] == [each.type_url for each in alone.status.details]
        assert sum(code == 0 for code in told.codes.values()) == 7


async def test_a_caller_who_leaves_leaves_nothing_open() -> None:
    async with world() as running:
        # They would end by themselves after longer than anybody waits here.
        patient = rpc(options="deadline { seconds: 600 }")
        await running.publish(*(running.tool(name, patient) for name in EIGHT))
        for name in EIGHT:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang
        calls, reading = [running.call(timeout_s=600) for _ in range(4)], list[asyncio.Future[None]]()

        async def all_are_open() -> None:
            assert running.tools.answering == 32

        for call in calls:
            reading.append(asyncio.ensure_future(_read(call)))
        await eventually(all_are_open, within_s=20)
        for call in calls:
            call.cancel()

        await running.released()
        await asyncio.gather(*reading)


async def test_streams_that_nobody_reads_any_more_end() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name, rpc("Stream", streams=True)) for name in EIGHT), policy=OPEN)
        for name in EIGHT:
            running.tools.streams[f"/{name}/Stream"] = never_ends

        call = running.call()
        await anext(aiter(call))
        call.cancel()

        await running.released()


async def test_a_reader_who_stops_stops_the_tools() -> None:
    """What runs ahead is bounded: by the windows on the way, and by nothing that grows."""
    async with world() as running:
        streams = (running.tool(name, rpc("Stream", streams=True)) for name in EIGHT)
        await running.publish(*streams, running.tool("acme.support.v1.Quick"), policy=OPEN)
        sent = dict.fromkeys(EIGHT, 0)

        def floods(name: str) -> Streaming:
            async def answer(_data: bytes, _context: object) -> AsyncIterator[bytes]:
                for _ in range(1000):
                    sent[name] += 1
                    yield passages(("x" * 100_000, 1))

            return answer

        for name in EIGHT:
            running.tools.streams[f"/{name}/Stream"] = floods(name)
        call = running.call(timeout_s=120)
        await anext(aiter(call))

        before: dict[str, int] = {}

        async def nothing_is_sent_any_more() -> None:
            nonlocal before
            now, before = before, dict(sent)
            assert before == now

        await eventually(nothing_is_sent_any_more, within_s=30, pause_s=1.0)
        assert sum(sent.values()) * 100_000 < 32 << 20
        meanwhile = await running.fan_out(selector=pb.Selector(tools=["acme.support.v1.Quick"]))
        assert meanwhile.codes == {"Quick": 0}
        call.cancel()
        await running.released()


async def test_a_stream_of_nothing_is_no_further_ahead_than_others_and_fits_its_messages() -> None:
    async with world() as running:
        await running.publish(*(running.tool(name, rpc("Stream", streams=True)) for name in EIGHT), policy=OPEN)
        count, sent = 60_000, Counter[str]()

        async def gives_nothing(_data: bytes, _context: object) -> AsyncIterator[bytes]:
            for _ in range(count):
                sent["nothing"] += 1
                yield b""
            await asyncio.Event().wait()

        async def gives_much(data: bytes, context: object) -> AsyncIterator[bytes]:
            async for each in much(data, context):
                sent["much"] += 1
                yield each

        for name in EIGHT:
            running.tools.streams[f"/{name}/Stream"] = gives_nothing if name == EIGHT[0] else gives_much
        call = running.call(timeout_s=120)
        await anext(aiter(call))
        before = Counter[str]()

        async def nothing_is_sent_any_more() -> None:
            nonlocal before
            now, before = before, sent.copy()
            assert before == now

        await eventually(nothing_is_sent_any_more, within_s=60, pause_s=1.0)
        told = list[int]()
        async for message in call:
            told += [len(branch.responses) for branch in message.branches if branch.tool == EIGHT[0]]
            if len(told) > 4:
                break

        assert max(told) < 2000
        call.cancel()
        await running.released()


async def test_who_states_no_deadline_and_does_not_read_is_let_go() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(snapshot, "DEFAULT_S", 5)
        async with world() as running:
            await running.publish(*(running.tool(name, rpc("Stream", streams=True)) for name in EIGHT), policy=OPEN)
            for name in EIGHT:
                running.tools.streams[f"/{name}/Stream"] = much
            call = running.send(pb.FanOutRequest(request=any_of(RetrieveRequest(query="a"))), timeout_s=None)
            await anext(aiter(call))

            async def is_let_go() -> None:
                assert (running.counts.running, running.legs.room.held_bytes) == (0, 0)

            assert running.counts.running == 1
            await eventually(is_let_go, within_s=25)
            call.cancel()


async def much(_data: bytes, _context: object) -> AsyncIterator[bytes]:
    while True:
        yield passages(("x" * 100_000, 1))


async def test_a_storm_of_losers_breaks_no_other_fan_out() -> None:
    """Envoy closes a connection on which more than half of 500 streams were reset young."""
    async with world() as running:
        await running.publish(*(running.tool(name) for name in EIGHT))
        for name in EIGHT[1:]:
            running.tools.behaviours[f"/{name}/Retrieve"] = hang
        slow = asyncio.Event()

        async def waits(_data: bytes, _context: object) -> bytes:
            await slow.wait()
            return passages(("late", 1))

        # Of the same caller, whose branches share a connection; a write, which is not sent again.
        patient = running.tool("acme.patient.v1.Tool", rpc(effect=WRITE), domain="patient")
        await running.publish(*(running.tool(name) for name in EIGHT), patient, policy=OPEN)
        running.tools.behaviours["/acme.patient.v1.Tool/Retrieve"] = waits
        waiting = asyncio.ensure_future(running.fan_out(selector=pb.Selector(domains=["patient"]), allow_writes=True))
        racing = pb.Selector(domains=["support"])
        for _ in range(120):
            told = await running.fan_out(completion=pb.COMPLETION_FIRST_OK, selector=racing)
            assert (told.codes["Tool0"], told.summary.met) == (0, True)
        slow.set()

        told = await waiting
        (branch,) = told.branches.values()
        assert (branch.status.code, branch.attempt_count) == (0, 1)
        await running.released()


async def test_a_write_is_sent_once_though_the_connection_breaks_and_a_read_is_sent_again() -> None:
    async with world() as running:
        await running.publish(running.tool(EIGHT[0], rpc(), rpc("Write", effect=WRITE)), policy=OPEN)
        read, write = (f"/{EIGHT[0]}/{name}" for name in ("Retrieve", "Write"))
        running.tools.behaviours |= {read: hang, write: hang}
        waiting = asyncio.ensure_future(running.fan_out(allow_writes=True, timeout_s=30))

        async def both_are_there() -> None:
            assert running.tools.calls == {read: 1, write: 1}

        await eventually(both_are_there, within_s=20)
        del running.tools.behaviours[read]
        running.link.cut()

        told = await waiting
        assert {name: each.status.code for name, each in told.branches.items()} == {read[1:]: 0, write[1:]: UNAVAILABLE}
        assert {name: each.attempt_count for name, each in told.branches.items()} == {read[1:]: 2, write[1:]: 1}
        assert running.tools.calls == {read: 2, write: 1}
        await running.released()


async def test_what_one_caller_does_to_a_tools_connection_ends_no_other_callers_branch() -> None:
    """gRPC's C core answers a request that is too large with what Envoy must take for a broken connection."""
    async with world() as running:
        await running.publish(running.tool(EIGHT[0], rpc("Write", effect=WRITE)), policy=OPEN)
        path, slow = f"/{EIGHT[0]}/Write", asyncio.Event()

        async def waits(_data: bytes, _context: object) -> bytes:
            await slow.wait()
            return passages(("late", 1))

        running.tools.behaviours[path] = waits
        waiting = asyncio.ensure_future(running.fan_out(allow_writes=True, metadata=bearer(token(sub="ben"))))

        async def waits_there() -> None:
            assert running.tools.answering == 1

        await eventually(waits_there, within_s=20)

        told = await running.fan_out(RetrieveRequest(query="x" * (3 << 20)), allow_writes=True)

        assert told.codes["Tool0"] != 0
        slow.set()
        (branch,) = (await waiting).branches.values()
        assert (branch.status.code, branch.attempt_count) == (0, 1)


async def test_what_nobody_reads_is_held_only_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "HELD_OF_A_CALLER_BYTES", 3 << 20)
    async with eight() as running:
        answered = Counter[str]()

        def gives_much(name: str) -> Behaviour:
            async def answer(_data: bytes, _context: object) -> bytes:
                answered[name] += 1
                return passages(("x" * (1 << 20), 1))

            return answer

        for name in EIGHT:
            running.tools.behaviours[f"/{name}/Retrieve"] = gives_much(name)
        call = running.call()
        first = await anext(aiter(call))

        async def all_have_ended() -> None:
            assert (answered.total(), running.legs.count) == (8, 0)

        await eventually(all_have_ended, within_s=30)
        assert running.legs.room.held_bytes <= 3 << 20
        told = told_of([first, *[message async for message in call]])

        codes = Counter(told.codes.values())
        assert set(codes) == {0, EXHAUSTED}
        assert running.legs.room.held_bytes == 0
        one = await running.fan_out(selector=pb.Selector(tools=[EIGHT[0]]))
        assert one.codes == {"Tool0": 0}


async def test_a_stream_that_nobody_has_room_for_ends() -> None:
    async with world() as running:
        await running.publish(running.tool(EIGHT[0], rpc("Stream", streams=True)), policy=OPEN)

        async def gives_more(_data: bytes, _context: object) -> AsyncIterator[bytes]:
            yield passages(("small", 1))
            yield passages(("x" * (1 << 20), 1))
            await asyncio.Event().wait()

        running.tools.streams[f"/{EIGHT[0]}/Stream"] = gives_more
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(room, "HELD_OF_A_CALLER_BYTES", 1 << 20)

            told = await running.fan_out()

        assert told.codes == {"Tool0": EXHAUSTED}
        await running.released()
        assert running.legs.room.held_bytes == 0


def never_ends(_data: bytes, _context: object) -> AsyncIterator[bytes]:
    return _forever()


async def _forever() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.001)
        yield passages(("again", 1))


async def _read(call: grpc.aio.UnaryStreamCall[pb.FanOutRequest, pb.FanOutResponse]) -> None:
    try:
        async for _ in call:
            pass
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        pass
