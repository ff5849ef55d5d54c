"""Servers that lie, break and strain, all on one mesh: each is told why, and nobody else is harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from llmesh import Mesh
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OWNER, PLATFORM, RunningMesh, running_mesh
from tests.e2e.process import Process
from tests.eventually import eventually
from tests.hostile.cases import Case
from tests.hostile.contracts import UNKNOWN_OPTION
from tests.hostile.tools import PAUSE_S, edit_mesh_file, good_calls, hostile_tools, unlike

COMMAND_TIMEOUT_S = 60
PAGE = 1000
# What may stay of the memory that contracts of 30 MB took while they were read.
STAYS_BYTES = 96 << 20


def why(mesh: RunningMesh, *arguments: str, caller: DevCaller = PLATFORM) -> str:
    """What `llmesh tools why` prints."""
    program = (sys.executable, "-P", "-c", "from llmesh.cli import main; main()")
    done = subprocess.run(
        (*program, "tools", "why", *arguments, "--address", mesh.address),
        env={**os.environ, "LLMESH_TOKEN": mesh.token(caller)},
        capture_output=True,
        check=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    return done.stdout


def resident_bytes(process: Process) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def search(mesh: RunningMesh) -> None:
    """What the first search loads stays loaded."""
    async with Mesh(mesh.address, mesh.token(PLATFORM)) as platform:
        await CatalogServiceStub(platform.channel).SearchTools(pb.SearchToolsRequest(query="echo"))


async def tools(mesh: RunningMesh) -> Mapping[str, pb.Tool]:
    async with Mesh(mesh.address, mesh.token(PLATFORM)) as platform:
        listed = await CatalogServiceStub(platform.channel).ListTools(pb.ListToolsRequest(page_size=PAGE))
    return {tool.service: tool for tool in listed.tools}


async def files_of(mesh: RunningMesh, service: str) -> bytes:
    async with Mesh(mesh.address, mesh.token(PLATFORM)) as platform:
        asked = pb.GetContractRequest(service=service)
        return (await CatalogServiceStub(platform.channel).GetContract(asked)).files.SerializeToString()


@pytest.fixture
def mesh() -> Iterator[RunningMesh]:
    with running_mesh(start=False) as running:
        edit_mesh_file(running, limits={"looks_at_once": 32})
        running.start_gateway()
        running.start_envoy()
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


async def test_whoever_lies_is_told_why_and_harms_nobody(mesh: RunningMesh) -> None:
    gateway = next(each for each in mesh.processes if each.name == "gateway")
    await search(mesh)
    before = resident_bytes(gateway)
    async with good_calls(mesh) as traffic:
        async with hostile_tools(mesh) as found:
            check_what_programs_read(mesh, found)
            check_what_people_read(mesh)
            check_what_owners_read(mesh)
            await check_the_catalog(mesh, found)
        await traffic.more(10)

        async def only_echo_is_left() -> None:
            assert {name for name in await tools(mesh) if name.startswith("acme.")} == {ECHO}

        async def memory_is_returned() -> None:
            assert resident_bytes(gateway) < before + STAYS_BYTES

        await eventually(only_echo_is_left, pause_s=PAUSE_S)
        await eventually(memory_is_returned)
    assert traffic.failures == {}


def check_what_programs_read(mesh: RunningMesh, found: Mapping[str, Case]) -> None:
    told: list[dict[str, Any]] = json.loads(why(mesh, "--json"))["endpoints"]
    known = {each["address"]: json_format.ParseDict(each, pb.Endpoint()) for each in told}
    assert [wrong for address, case in found.items() if (wrong := unlike(case, known[address]))] == []
    failed = [step for address in found for step in known[address].steps if not step.passed]
    assert all(step.message and step.message.isprintable() for step in failed)


def check_what_people_read(mesh: RunningMesh) -> None:
    told = why(mesh)
    assert "the endpoint took too long to say what it serves" in told
    assert "the mesh shows one that adds to it" in told
    assert "CIRCULAR_IMPORT acme.testing.circular.v1.Bad" in told
    assert "which belongs to `support`, and not as its owner's admitted contracts do" in told
    # Nothing that a server says acts on a terminal.
    assert all(each.isprintable() for each in told.splitlines())


def check_what_owners_read(mesh: RunningMesh) -> None:
    told = why(mesh, "acme.testing.longname.v1", caller=OWNER)
    assert "BAD_NAME acme.testing.longname.v1.Bad" in told
    assert "acme.testing.longname.v1.Good" in told


async def check_the_catalog(mesh: RunningMesh, found: Mapping[str, Case]) -> None:
    async def shown() -> None:
        listed = {name: tool.ready_count for name, tool in (await tools(mesh)).items() if name.startswith("acme.")}
        live = (service for case in found.values() if case.name != "changes" for service in case.admitted)
        changing = (service for case in found.values() if case.name == "changes" for service in case.admitted)
        assert listed == {ECHO: 1, **Counter(live), **dict.fromkeys(changing, 0)}

    await eventually(shown, pause_s=PAUSE_S)
    # An option that the mesh does not know reaches those who do.
    assert (await files_of(mesh, "acme.testing.ownoption.v1.Bad")).count(UNKNOWN_OPTION) == 3
