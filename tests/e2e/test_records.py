"""Each call has its record, whichever process dies or loses its disk; and who may read it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

from gateway.state import Store
from llmesh._client import open_channel
from llmesh.api.blocks.v1 import blocks_pb2 as blocks
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub
from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.cli.gateway import ask_gateway
from llmesh.identity import DevCaller
from llmesh.supervisor.rotation import rotate_calls_once
from tests.e2e.mesh import ECHO, OWNER, READER, RunningMesh, running_mesh
from tests.e2e.recorded import AUDITOR, Calls, recorded
from tests.e2e.traffic import Traffic
from tests.eventually import eventually

OPERATOR = DevCaller("oscar", roles=("owner",), domain="platform")
WITHIN_S = 60.0
ROTATE_BYTES = 16 * 1024
# More than the blocks take, and less than the records.
ROOM_BYTES = 128 * 1024


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


@pytest.fixture
async def channel(mesh: RunningMesh) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(mesh.address) as opened:
        yield opened


async def expect_each_once(mesh: RunningMesh, channel: grpc.aio.Channel, calls: Calls) -> None:
    async def all_there() -> Counter[tuple[str, int]]:
        found = await recorded(mesh, channel)
        assert calls.expected <= found.keys()
        return found

    found = await eventually(all_there, within_s=WITHIN_S)
    assert {found[key] for key in calls.expected} == {1}


async def test_a_gateway_killed_again_and_again_under_traffic_and_rotation_loses_and_doubles_none(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    async def tool_is_kept() -> None:
        assert Store(mesh.home.catalog).load()
        assert json.loads(mesh.home.leases.read_text())

    await eventually(tool_is_kept)
    calls = Calls(mesh, channel)
    [gateway] = [each for each in mesh.processes if each.name == "gateway" and each.alive]
    async with Traffic(calls.read) as reads, Traffic(calls.write, at_once=1) as writes:
        for _ in range(4):
            gateway.kill()
            await reads.more(100)
            await asyncio.to_thread(rotate_calls_once, mesh.home, rotate_bytes=ROTATE_BYTES, keep=50)
            # The kernel ends it with the thread that starts it.
            gateway = mesh.start_gateway()
            # It is at work on what it has missed when it is killed again.
            await eventually(lambda: recorded(mesh, channel), within_s=WITHIN_S)
            await reads.more(100)
    assert (reads.failures, writes.failures) == ({}, {})
    assert len(list(mesh.home.logs.glob("calls.jsonl.*"))) >= 2
    await expect_each_once(mesh, channel, calls)


async def test_an_envoy_that_is_killed_loses_the_newest_at_most_and_records_go_on_by_themselves(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    before, after = Calls(mesh, channel), Calls(mesh, channel)
    # One at a time, so that it is known in which order they ended.
    async with Traffic(before.read, at_once=1) as reads:
        await reads.more(300)
        [envoy] = [each for each in mesh.processes if each.name == "envoy" and each.alive]
        envoy.kill()
    mesh.start_envoy()

    async def answers() -> None:
        await after.read()

    await eventually(answers, within_s=WITHIN_S)
    async with Traffic(after.read) as reads:
        await reads.more(50)
    await expect_each_once(mesh, channel, after)
    found = await recorded(mesh, channel)
    kept = [found[call_id, records.Record.PHASE_END] for call_id in before.reads]
    assert kept == sorted(kept, reverse=True)
    assert {*kept} <= {0, 1}
    assert kept[:100] == [1] * 100


@contextmanager
def full_disk(pid: int, *, room: int = 0) -> Generator[None]:
    """No file of the process can grow beyond so many bytes."""
    limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


async def test_a_full_disk_stops_no_call_is_told_and_nothing_is_missing_once_there_is_room(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    calls = Calls(mesh, channel)
    [gateway] = [each for each in mesh.processes if each.name == "gateway" and each.alive]

    async def fault() -> str:
        told = await asyncio.to_thread(ask_gateway, mesh.home)
        return told.read().records.error if told else "away"

    async def says_so() -> None:
        assert await fault() not in ("", "away")

    async def is_mended() -> None:
        assert await fault() == ""

    async with Traffic(calls.read) as reads:
        with full_disk(gateway.pid):
            await eventually(says_so, within_s=WITHIN_S)
            await reads.more(100)
        await reads.more(50)
    assert reads.failures == {}
    await expect_each_once(mesh, channel, calls)
    await eventually(is_mended, within_s=WITHIN_S)


async def test_blocks_are_placed_and_ended_while_the_records_have_used_up_their_room(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    calls = Calls(mesh, channel)
    [gateway] = [each for each in mesh.processes if each.name == "gateway" and each.alive]

    async def is_full() -> None:
        told = await asyncio.to_thread(ask_gateway, mesh.home)
        assert told
        assert told.read().records.error

    async with Traffic(calls.read) as reads:
        with full_disk(gateway.pid, room=ROOM_BYTES):
            await eventually(is_full, within_s=WITHIN_S)
            stub, placing = BlockServiceStub(channel), mesh.bearer(OPERATOR)
            target = blocks.Target(method=f"{ECHO}/Erase")
            placed = await stub.Block(blocks.BlockRequest(target=target, reason="it leaks"), metadata=placing)
            assert placed.in_force
            with pytest.raises(grpc.aio.AioRpcError, match="it leaks"):
                await calls.write()
            await stub.Unblock(blocks.UnblockRequest(target=target), metadata=placing)
            await is_full()
    assert reads.failures == {}
    await expect_each_once(mesh, channel, calls)


async def listed(mesh: RunningMesh, channel: grpc.aio.Channel, caller: DevCaller) -> list[records.Record]:
    asked = records.ListRecordsRequest(page_size=1000)
    return list((await RecordServiceStub(channel).ListRecords(asked, metadata=mesh.bearer(caller))).records)


async def test_everyone_reads_the_records_of_their_own_calls_and_an_auditor_all(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    calls = Calls(mesh, channel)
    await calls.read()
    await calls.write()
    await expect_each_once(mesh, channel, calls)
    assert {record.caller.subject for record in await listed(mesh, channel, READER)} == {READER.name}
    for sees_all in (AUDITOR, OPERATOR):
        assert {READER.name, OWNER.name} <= {record.caller.subject for record in await listed(mesh, channel, sees_all)}
    # An owner of another domain, and one who has no more than the role `platform`, are no auditors.
    assert {record.caller.subject for record in await listed(mesh, channel, OWNER)} == {OWNER.name}

    of_another = records.GetTreeRequest(call_id=calls.writes[0])
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await RecordServiceStub(channel).GetTree(of_another, metadata=mesh.bearer(READER))
    unknown = records.GetTreeRequest(call_id="none")
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await RecordServiceStub(channel).GetTree(unknown, metadata=mesh.bearer(AUDITOR))
    own = await RecordServiceStub(channel).GetTree(of_another, metadata=mesh.bearer(OWNER))
    assert [record.phase for record in own.records] == [records.Record.PHASE_START, records.Record.PHASE_END]


async def test_a_watch_tells_each_record_as_it_is_made(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    wanted = records.RecordFilter(tool=f"{ECHO}/Unary", caller=READER.name)
    watch = RecordServiceStub(channel).WatchRecords(
        records.WatchRecordsRequest(filter=wanted), metadata=mesh.bearer(AUDITOR), timeout=WITHIN_S
    )
    seen = aiter(watch)
    assert not (await anext(seen)).records
    calls = Calls(mesh, channel)
    await calls.write()
    await calls.read()
    [record] = (await anext(seen)).records
    assert record.call_id == calls.reads[0]
    watch.cancel()


async def test_the_command_follows_each_call_as_it_is_made(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    calls = Calls(mesh, channel)
    await calls.read()
    await expect_each_once(mesh, channel, calls)
    argv = ("audit", "--follow", "--limit", "1", "--tool", f"{ECHO}/Unary", "--json")
    following = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llmesh.cli", *argv), env=environment(mesh, AUDITOR), stdout=subprocess.PIPE
    )
    assert following.stdout

    async def next_call(lines: asyncio.StreamReader) -> str:
        async with asyncio.timeout(WITHIN_S):
            return json.loads(await lines.readline())["call_id"]

    try:
        assert await next_call(following.stdout) == calls.reads[0]
        for number in (1, 2):
            await calls.write()
            await calls.read()
            assert await next_call(following.stdout) == calls.reads[number]
    finally:
        following.send_signal(signal.SIGINT)
        status = await following.wait()
    assert status == 0


async def test_pages_go_on_where_the_last_one_ended(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    calls = Calls(mesh, channel)
    for _ in range(5):
        await calls.read()
    await expect_each_once(mesh, channel, calls)
    stub, wanted = RecordServiceStub(channel), records.RecordFilter(tool=f"{ECHO}/Unary")
    found, token = list[str](), ""
    while len(found) < 5:
        asked = records.ListRecordsRequest(filter=wanted, page_size=2, page_token=token)
        page = await stub.ListRecords(asked, metadata=mesh.bearer())
        found += [record.call_id for record in page.records]
        token = page.next_page_token
    assert found[:5] == calls.reads[::-1]
    with pytest.raises(grpc.aio.AioRpcError, match="page token"):
        await stub.ListRecords(records.ListRecordsRequest(page_token=token), metadata=mesh.bearer())


async def test_what_an_answer_and_an_error_rest_on_is_in_the_record(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    fact = {"document": "guide.md"}
    stub = EchoStub(channel)
    await stub.Unary(pb.UnaryRequest(text="a", orders=pb.Orders(cite=fact)), metadata=mesh.bearer())
    failing = pb.Orders(cite=fact, status=pb.Status(code=5, message="none"))
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await stub.Unary(pb.UnaryRequest(text="a", orders=failing), metadata=mesh.bearer())

    async def both() -> None:
        found = [record for record in await listed(mesh, channel, READER) if record.service == ECHO][:2]
        assert [json.loads(record.provenance or "null") for record in found] == [[fact], [fact]]

    await eventually(both, within_s=WITHIN_S)


def environment(mesh: RunningMesh, caller: DevCaller) -> dict[str, str]:
    """Of a command that this caller runs."""
    told = {"LLMESH_HOME": str(mesh.home.path), "LLMESH_ADDRESS": mesh.address, "LLMESH_TOKEN": mesh.token(caller)}
    return os.environ | told


def audit(mesh: RunningMesh, *arguments: str, caller: DevCaller = AUDITOR) -> subprocess.CompletedProcess[str]:
    """As `llmesh audit`."""
    argv = (sys.executable, "-m", "llmesh.cli", "audit", *arguments)
    return subprocess.run(argv, env=environment(mesh, caller), capture_output=True, text=True, check=False)


async def test_the_command_lists_follows_the_filters_and_shows_what_a_call_caused(
    mesh: RunningMesh, channel: grpc.aio.Channel
) -> None:
    calls = Calls(mesh, channel)
    await calls.write()
    await expect_each_once(mesh, channel, calls)
    [call_id] = calls.writes

    told = await asyncio.to_thread(audit, mesh, "--tool", f"{ECHO}/Erase", "--since", "1h", "--limit", "2", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(line["call_id"], line["phase"]) for line in lines] == [(call_id, "PHASE_START"), (call_id, "PHASE_END")]
    assert {(line["outcome"], line["rule"]) for line in lines} == {("OUTCOME_ALLOWED", "mesh/destructive")}

    told = await asyncio.to_thread(audit, mesh, "--caller", OWNER.name, "--limit", "1")
    for word in (call_id, OWNER.name, f"{ECHO}/Erase", "allowed", "mesh/destructive"):
        assert word in told.stdout
    told = await asyncio.to_thread(audit, mesh, "--outcome", "malformed")
    assert told.stdout == "no call is recorded that you may read and that fits\n"
    told = await asyncio.to_thread(audit, mesh, "tree", call_id)
    assert call_id in told.stdout
    told = await asyncio.to_thread(audit, mesh, "--since", "yesterday")
    assert (told.returncode, "`yesterday` is no time" in told.stderr) == (1, True)
