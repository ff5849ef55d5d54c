"""What is blocked stays blocked, whatever of the mesh is restarted, and is told to who calls."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle

import grpc
import grpc.aio
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]

from llmesh import Denied, Mesh
from llmesh._client import open_channel
from llmesh.api.blocks.v1 import blocks_pb2 as blocks
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub
from llmesh.api.calls.v1 import calls_pb2 as calls
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceStub
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.identity import DevCaller
from tests.e2e.admin import stat
from tests.e2e.mesh import ECHO, OWNER, PLATFORM, READER, RunningMesh, running_mesh
from tests.e2e.traffic import OK, Traffic
from tests.envoy import from_call
from tests.eventually import eventually

OPS = DevCaller("ops", roles=("editor",), domain="platform")
BACK_WITHIN_S = 60.0
TARGETS = {
    "tool": blocks.Target(tool=ECHO),
    "method": blocks.Target(method=f"{ECHO}/Unary"),
    "domain": blocks.Target(domain="testing"),
    "caller": blocks.Target(caller=blocks.Caller(issuer="dev", subject=READER.name)),
}


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


@asynccontextmanager
async def blocked(mesh: RunningMesh, target: blocks.Target) -> AsyncGenerator[blocks.BlockResponse]:
    """The target is blocked for as long as the block lasts."""
    async with open_channel(mesh.address) as channel:
        stub, metadata = BlockServiceStub(channel), mesh.bearer(OPS)
        request = blocks.BlockRequest(target=target, reason="it leaks")
        try:
            yield await stub.Block(request, metadata=metadata, timeout=30)
        finally:

            async def unblock() -> None:
                await stub.Unblock(blocks.UnblockRequest(target=target), metadata=metadata, timeout=10)

            await eventually(unblock, within_s=BACK_WITHIN_S)
    await eventually(lambda: answers(mesh), within_s=BACK_WITHIN_S)


async def answers(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        await EchoStub(channel).Unary(pb.UnaryRequest(text="a"), metadata=mesh.bearer(), timeout=10)


async def is_stopped(mesh: RunningMesh) -> None:
    """Raise AssertionError unless a call is refused for the block. One that passes is another error."""
    async with open_channel(mesh.address) as channel:
        call = EchoStub(channel).Unary(pb.UnaryRequest(text="a"), metadata=mesh.bearer(), timeout=5)
        if await call.code() is grpc.StatusCode.OK:
            raise LetThroughError
        assert "it leaks" in (await call.details() or ""), call


class LetThroughError(Exception):
    """A call to what is blocked was answered."""


@pytest.mark.parametrize("kind", TARGETS)
async def test_a_plain_client_reads_why_at_once(mesh: RunningMesh, kind: str) -> None:
    async with open_channel(mesh.address) as channel:
        echo = EchoStub(channel)
        await echo.Unary(pb.UnaryRequest(text="a"), metadata=mesh.bearer())
        async with blocked(mesh, TARGETS[kind]) as placed:
            assert placed.in_force
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await echo.Unary(pb.UnaryRequest(text="a"), metadata=mesh.bearer())
            status = from_call(error.value)
            assert status
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert (info.reason, info.metadata["reason"]) == ("BLOCKED", "it leaks")
            assert info.metadata["block"] == placed.block.id
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("what", ["gateway", "envoy", "echo", "everything"])
async def test_no_restart_lets_a_call_through(mesh: RunningMesh, what: str) -> None:
    async with blocked(mesh, TARGETS["domain"]), blocked_caller(mesh), open_channel(mesh.address) as channel:
        echo, turns = EchoStub(channel), cycle((READER, OWNER))
        calls = Traffic(lambda: echo.Unary(pb.UnaryRequest(), metadata=mesh.bearer(next(turns)), timeout=5), at_once=1)
        async with calls:
            # Not in a thread: what it starts would end with it.
            restart(mesh, what)
            await eventually(lambda: is_back(mesh, channel), within_s=BACK_WITHIN_S)
            await calls.more(20)
        await is_stopped(mesh)
    assert OK not in calls.outcomes


async def is_back(mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
    """The gateway answers, knows of the blocks and of the tool, and programs Envoy."""
    listed = await BlockServiceStub(channel).ListBlocks(
        blocks.ListBlocksRequest(), metadata=mesh.bearer(OPS), timeout=10
    )
    assert {each.reason for each in listed.blocks} == {"it leaks", "a bot"}
    stub, asked = CatalogServiceStub(channel), catalog.ListEndpointsRequest()
    known = await stub.ListEndpoints(asked, metadata=mesh.bearer(PLATFORM), timeout=10)
    assert catalog.Endpoint.STATE_READY in {each.state for each in known.endpoints if ECHO in each.services}
    assert await asyncio.to_thread(stat, mesh.home.admin_socket, "control_plane.connected_state") == 1


@asynccontextmanager
async def blocked_caller(mesh: RunningMesh) -> AsyncGenerator[None]:
    """Who owns the tool is blocked too, beside the domain."""
    caller = blocks.Target(caller=blocks.Caller(issuer="dev", subject=OWNER.name))
    async with open_channel(mesh.address) as channel:
        stub, metadata = BlockServiceStub(channel), mesh.bearer(OPS)
        await stub.Block(blocks.BlockRequest(target=caller, reason="a bot"), metadata=metadata)
        yield

        async def unblock() -> None:
            await stub.Unblock(blocks.UnblockRequest(target=caller), metadata=metadata, timeout=10)

        await eventually(unblock, within_s=BACK_WITHIN_S)


def restart(mesh: RunningMesh, what: str) -> None:
    """Kill, and start anew; everything: the gateway last, so that Envoy waits for it."""
    names = ("echo", "envoy", "gateway") if what == "everything" else (what,)
    for process in mesh.processes:
        if process.name in names and process.alive:
            process.kill()
    for name in names:
        {"echo": mesh.start_echo, "envoy": mesh.start_envoy, "gateway": mesh.start_gateway}[name]()


@pytest.mark.parametrize("caller", [READER, OWNER, DevCaller("eve", roles=("editor", "owner"), domain="support")])
async def test_who_may_not_block_blocks_nothing(mesh: RunningMesh, caller: DevCaller) -> None:
    async with Mesh(mesh.address, mesh.token(caller)) as client:
        stub = BlockServiceStub(client.channel)
        with pytest.raises(Denied):
            await stub.Block(blocks.BlockRequest(target=TARGETS["tool"], reason="because"))
        with pytest.raises(Denied):
            await stub.Unblock(blocks.UnblockRequest(target=TARGETS["tool"]))
        with pytest.raises(Denied):
            await stub.ListChanges(blocks.ListChangesRequest())
    await answers(mesh)


async def test_a_stream_that_is_open_goes_on_and_no_new_one_begins(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        stream = EchoStub(channel).Bidi(metadata=mesh.bearer())
        await stream.write(pb.BidiRequest(text="a"))
        assert await stream.read() == pb.BidiResponse(text="a")
        async with blocked(mesh, TARGETS["tool"]):
            await stream.write(pb.BidiRequest(text="b"))
            assert await stream.read() == pb.BidiResponse(text="b")
            late = EchoStub(channel).Bidi(metadata=mesh.bearer())
            assert await late.code() is grpc.StatusCode.PERMISSION_DENIED
        stream.cancel()


@pytest.mark.parametrize("kind", ["tool", "domain", "caller"])
async def test_open_streams_end_at_once_where_they_are_cut(mesh: RunningMesh, kind: str) -> None:
    async with open_channel(mesh.address) as channel:
        streams = [EchoStub(channel).Bidi(metadata=mesh.bearer(caller)) for caller in (READER, OWNER)]
        for stream in streams:
            await stream.write(pb.BidiRequest(text="a"))
            assert await stream.read() == pb.BidiResponse(text="a")
        theirs, others = streams
        stub, metadata = BlockServiceStub(channel), mesh.bearer(OPS)
        request = blocks.BlockRequest(target=TARGETS[kind], reason="it leaks", cut=True)
        placed = await stub.Block(request, metadata=metadata, timeout=30)

        assert await theirs.code() is grpc.StatusCode.PERMISSION_DENIED
        # Why a caller is blocked is for the caller alone to read, not for the tools that end its calls.
        assert ("it leaks" in (await theirs.details() or "")) is (kind != "caller")
        assert placed.calls_ended == (1 if kind == "caller" else 2)
        assert not placed.not_cut
        if kind == "caller":
            await others.write(pb.BidiRequest(text="b"))
            assert await others.read() == pb.BidiResponse(text="b")
            others.cancel()
        await stub.Unblock(blocks.UnblockRequest(target=TARGETS[kind]), metadata=metadata, timeout=30)
    await eventually(lambda: answers(mesh), within_s=BACK_WITHIN_S)


async def test_what_a_cut_caller_watches_of_the_mesh_ends_too(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        watch = CatalogServiceStub(channel).WatchTools(catalog.WatchToolsRequest(), metadata=mesh.bearer(READER))
        assert await watch.read()
        stub, metadata = BlockServiceStub(channel), mesh.bearer(OPS)
        request = blocks.BlockRequest(target=TARGETS["caller"], reason="it leaks", cut=True)
        placed = await stub.Block(request, metadata=metadata, timeout=30)

        assert await watch.code() is grpc.StatusCode.PERMISSION_DENIED
        assert (placed.calls_ended, list(placed.not_cut)) == (1, [])
        await stub.Unblock(blocks.UnblockRequest(target=TARGETS["caller"]), metadata=metadata, timeout=30)
    await eventually(lambda: answers(mesh), within_s=BACK_WITHIN_S)


async def test_nobody_ends_calls_through_the_mesh(mesh: RunningMesh) -> None:
    request = calls.EndCallsRequest(message="be gone", reason="BLOCKED", method=f"{ECHO}/Bidi")
    async with open_channel(mesh.address) as channel:
        stream = EchoStub(channel).Bidi(metadata=mesh.bearer())
        await stream.write(pb.BidiRequest(text="a"))
        assert await stream.read() == pb.BidiResponse(text="a")
        for caller in (READER, OWNER, OPS):
            call = CallServiceStub(channel).EndCalls(request, metadata=mesh.bearer(caller), timeout=30)
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        await stream.write(pb.BidiRequest(text="b"))
        assert await stream.read() == pb.BidiResponse(text="b")
        stream.cancel()


def command(mesh: RunningMesh, caller: DevCaller, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As `llmesh ...` of somebody who has a token."""
    told = {"LLMESH_HOME": str(mesh.home.path), "LLMESH_ADDRESS": mesh.address, "LLMESH_TOKEN": mesh.token(caller)}
    argv = (sys.executable, "-m", "llmesh.cli", *arguments)
    return subprocess.run(argv, env=os.environ | told, capture_output=True, text=True, check=False)


async def test_the_commands_stop_a_tool_and_let_it_go_on(mesh: RunningMesh) -> None:
    placed = command(mesh, OPS, "block", ECHO, "--reason", "it leaks", "--until", "1h", "--cut", "--json")
    try:
        assert placed.returncode == 0, placed.stderr
        answer = json.loads(placed.stdout)
        assert (answer["in_force"], answer["block"]["target"]) == (True, {"tool": ECHO})
        await is_stopped(mesh)
        [listed] = json.loads(command(mesh, READER, "blocks", "--json").stdout)["blocks"]
        assert listed == answer["block"]
        refused = command(mesh, READER, "unblock", ECHO)
        assert (refused.returncode, "PERMISSION_DENIED" in refused.stderr) == (1, True)
        await is_stopped(mesh)
    finally:
        ended = command(mesh, OPS, "unblock", ECHO, "--reason", "mended")
    assert (ended.returncode, ended.stdout) == (0, f"unblocked: {ECHO}\n")
    await eventually(lambda: answers(mesh), within_s=BACK_WITHIN_S)
    history = command(mesh, OPS, "blocks", "--history", "--limit", "1").stdout
    assert "mended" in history
