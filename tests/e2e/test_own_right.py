"""A tool that calls others in its own right, on a whole mesh: the herald calls the echo, and nobody the herald."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any as Untyped

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.herald import HeraldServicer
from grpc_reflection.v1alpha import reflection_pb2

import llmesh
from llmesh._client import open_channel
from llmesh.api.blocks.v1 import blocks_pb2 as blocks
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub
from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.identity.v1 import identity_pb2
from llmesh.api.identity.v1.identity_pb2_grpc import IdentityServiceServicer, IdentityServiceStub
from llmesh.api.registry.v1 import registry_pb2
from llmesh.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OWNER, PLATFORM, READER, RunningMesh, running_mesh
from tests.e2e.recorded import AUDITOR
from tests.eventually import eventually

HERALD = "acme.testing.v1.Herald"
OPS = DevCaller("ops", roles=("editor",), domain="platform")
SHUT_OUT = f"""
version: 1
domain: testing
default: inherit
rules:
  - id: no-heralds
    effect: forbid
    when: caller.subject == '{HERALD}'
    reason: heralds may call no test tool
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


@asynccontextmanager
async def herald(mesh: RunningMesh) -> AsyncGenerator[llmesh.OwnMesh]:
    """The tool, once it can call in its own right."""
    own = llmesh.OwnMesh()
    async with llmesh.Server(HeraldServicer(), home=mesh.home, name="herald", own_mesh=own, drain_limit_s=0):
        await own.wait(timeout_s=60)
        yield own


async def who(own: llmesh.OwnMesh) -> pb.WhoAmIResponse:
    """As whom the echo knows the herald."""
    return await EchoStub(own.channel).WhoAmI(pb.WhoAmIRequest(), timeout=30)


async def test_the_other_tool_sees_the_tool_itself_and_the_record_says_so(mesh: RunningMesh) -> None:
    async with herald(mesh) as own:
        seen = await eventually(lambda: who(own))

    assert (seen.issuer, seen.subject, seen.domain, seen.actor) == ("llmesh", HERALD, "testing", "")
    assert not seen.roles
    assert not seen.clearances
    assert not {"llmesh-delegation", "authorization", "x-llmesh-delegated"} & {*seen.metadata_keys}

    async def is_recorded() -> Untyped:
        lines = await asyncio.to_thread(audit, mesh, "--tool", f"{ECHO}/WhoAmI", "--caller", HERALD, "--json")
        [record] = [each for each in lines if each["call_id"] == seen.call_id]
        return record

    record = await eventually(is_recorded)
    assert (record["caller"]["issuer"], record["caller"]["subject"]) == ("llmesh", HERALD)
    assert record["outcome"] == "OUTCOME_ALLOWED"
    assert record["parent"] == ""


def audit(mesh: RunningMesh, *arguments: str) -> list[dict[str, Untyped]]:
    """What `llmesh audit` tells an auditor."""
    told = {"LLMESH_HOME": str(mesh.home.path), "LLMESH_ADDRESS": mesh.address, "LLMESH_TOKEN": mesh.token(AUDITOR)}
    argv = (sys.executable, "-m", "llmesh.cli", "audit", *arguments)
    done = subprocess.run(argv, env=os.environ | told, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_tool_may_call_what_it_uses_and_what_the_rules_permit_to_itself(mesh: RunningMesh) -> None:
    async with herald(mesh) as own:
        echo = EchoStub(own.channel)
        with pytest.raises(llmesh.Denied) as unlisted:
            await echo.Unary(pb.UnaryRequest(text="a"), timeout=30)
        with pytest.raises(llmesh.Denied) as destructive:
            await echo.Erase(pb.EraseRequest(), timeout=30)

    assert unlisted.value.reason == "NOT_DELEGATED"
    assert unlisted.value.message.startswith(f"{HERALD} may not call {ECHO}/Unary in its own right")
    assert destructive.value.reason == "NO_RULE_PERMITS"


async def test_rules_are_asked_at_each_call(mesh: RunningMesh) -> None:
    rules = mesh.folder / "policies/domains/testing.yaml"
    before = rules.read_text()
    async with herald(mesh) as own:
        await eventually(lambda: who(own))
        rules.write_text(SHUT_OUT)

        async def is_shut_out() -> None:
            assert await denied_by(own) == "domain/testing/no-heralds"

        try:
            await eventually(is_shut_out)
        finally:
            rules.write_text(before)
        await eventually(lambda: who(own))


async def denied_by(own: llmesh.OwnMesh) -> str:
    """The rule that refuses the herald; empty where it is let through."""
    try:
        await who(own)
    except llmesh.Denied as err:
        return err.rule
    return ""


@pytest.mark.parametrize(
    "target",
    [blocks.Target(tool=HERALD), blocks.Target(caller=blocks.Caller(issuer="llmesh", subject=HERALD))],
    ids=["the tool", "the tool as a caller"],
)
async def test_a_block_stops_what_the_tool_calls_in_its_own_right(mesh: RunningMesh, target: blocks.Target) -> None:
    async with herald(mesh) as own, open_channel(mesh.address) as channel:
        await eventually(lambda: who(own))
        stream = EchoStub(own.channel).Bidi(timeout=60)
        await stream.write(pb.BidiRequest(text="a"))
        assert await stream.read() == pb.BidiResponse(text="a")
        operator, metadata = BlockServiceStub(channel), mesh.bearer(OPS)
        request = blocks.BlockRequest(target=target, reason="it leaks", cut=True)
        placed = await operator.Block(request, metadata=metadata, timeout=60)
        try:
            assert placed.in_force
            assert placed.calls_ended == 1
            assert await stream.code() is grpc.StatusCode.PERMISSION_DENIED
            with pytest.raises(llmesh.Denied, match="is blocked: it leaks") as raised:
                await who(own)
        finally:
            await operator.Unblock(blocks.UnblockRequest(target=target), metadata=metadata, timeout=60)
        assert raised.value.reason == "BLOCKED"
        await eventually(lambda: who(own))


async def test_a_new_process_of_the_tool_is_told_who_it_is(mesh: RunningMesh) -> None:
    for _ in range(2):
        async with herald(mesh) as own:
            assert (await eventually(lambda own=own: who(own))).subject == HERALD


async def test_a_tool_keeps_its_identity_while_the_gateway_is_away_and_gets_another_from_the_next(
    mesh: RunningMesh,
) -> None:
    async with herald(mesh) as own:
        [gateway] = [each for each in mesh.processes if each.name == "gateway" and each.alive]
        gateway.kill()
        assert (await eventually(lambda: who(own))).subject == HERALD
        mesh.start_gateway()
        async with herald_elsewhere(mesh) as another:
            assert (await eventually(lambda: who(another))).subject == HERALD


@asynccontextmanager
async def herald_elsewhere(mesh: RunningMesh) -> AsyncGenerator[llmesh.OwnMesh]:
    own = llmesh.OwnMesh()
    async with llmesh.Server(HeraldServicer(), home=mesh.home, name="herald2", own_mesh=own, drain_limit_s=0):
        await own.wait(timeout_s=60)
        yield own


class Thief(IdentityServiceServicer):
    """An evil tool's, which keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[identity_pb2.TakeIdentityRequest] = []

    async def TakeIdentity(
        self, request: identity_pb2.TakeIdentityRequest, context: object
    ) -> identity_pb2.TakeIdentityResponse:
        self.heard.append(request)
        return identity_pb2.TakeIdentityResponse()


async def test_an_evil_tool_gets_no_others_identity_and_its_own_is_good_for_what_it_uses_alone(
    mesh: RunningMesh,
) -> None:
    from acme.support.v1.tickets_pb2_grpc import TicketsServicer

    thief, evil = Thief(), "acme.support.v1.Tickets"
    async with herald(mesh), registry(mesh) as leases, open_channel(mesh.address) as channel:
        victim = f"unix:{mesh.home.tool_socket('herald')}"
        await leases.Register(registry_pb2.RegisterRequest(address=victim), timeout=30)
        served = TicketsServicer, thief
        async with llmesh.Server(*served, home=mesh.home, name="thief", drain_limit_s=0):

            async def is_told() -> None:
                assert thief.heard

            await eventually(is_told)
            await leases.Register(registry_pb2.RegisterRequest(address=victim), timeout=30)
            stolen = (("llmesh-delegation", thief.heard[-1].token),)
            call = EchoStub(channel).WhoAmI(pb.WhoAmIRequest(), metadata=stolen, timeout=30)

            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert (await call.details() or "").startswith(f"{evil} may not call {ECHO}/WhoAmI in its own right")
            assert {each.service for each in thief.heard} == {evil}


@asynccontextmanager
async def registry(mesh: RunningMesh) -> AsyncGenerator[Untyped]:
    """Where tools take leases."""
    async with open_channel(f"unix:{mesh.home.registry_socket}") as channel:
        yield RegistryServiceStub(channel)


async def test_nobody_says_through_the_mesh_who_a_tool_is_nor_finds_where(mesh: RunningMesh) -> None:
    told = identity_pb2.TakeIdentityRequest(service=HERALD, token="a.b.c", mesh="127.0.0.1:1")  # noqa: S106 no token
    told.lasts.FromSeconds(60)
    async with herald(mesh) as own, open_channel(mesh.address) as channel:
        for caller in (READER, OWNER, PLATFORM):
            call = IdentityServiceStub(channel).TakeIdentity(told, metadata=mesh.bearer(caller), timeout=30)
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        asked = catalog.ListToolsRequest(page_size=1000)
        listed = await CatalogServiceStub(channel).ListTools(asked, metadata=mesh.bearer(PLATFORM), timeout=30)
        assert HERALD in {each.service for each in listed.tools}
        assert not [each.service for each in listed.tools if "identity" in each.service]
        async with open_channel(f"unix:{mesh.home.tool_socket('herald')}") as direct:
            listed_there = await reflected(direct)
        assert HERALD.encode() in listed_there
        assert b"identity" not in listed_there
        assert (await eventually(lambda: who(own))).subject == HERALD


async def reflected(channel: Untyped) -> bytes:
    """What reflection lists, as it is sent."""
    reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    stream = reflect(timeout=30)
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString())
    answer = await stream.read()
    stream.cancel()
    return answer
