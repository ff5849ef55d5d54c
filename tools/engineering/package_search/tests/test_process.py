"""The tool as it runs: a process of its own, in a mesh directory, no gateway there."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acme.engineering.v1.package_search_pb2_grpc import PackageSearchStub

from llmesh import Mesh, Unavailable
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from llmesh.home import Home

TOOL = Path(__file__).resolve().parent.parent
STATUS = Path(__file__).with_name("status.txt")


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # pytest's own paths are too long for a socket
        yield Home.find(Path(folder) / "m").create()


async def start(home: Home, status: Path) -> asyncio.subprocess.Process:
    env = {**os.environ, "LLMESH_HOME": str(home.path), "LLMESH_NAME": "package_search"}
    command = (sys.executable, "-m", "package_search", "--status", str(status))
    return await asyncio.create_subprocess_exec(*command, cwd=TOOL, env=env, stderr=-1)


async def until_serving(process: asyncio.subprocess.Process) -> str:
    """What it has said until it serves."""
    assert process.stderr is not None
    log = b""
    while b'"serving"' not in log:
        line = await process.stderr.readline()
        assert line, log.decode()
        log += line
    return log.decode()


async def retrieve(home: Home, process: asyncio.subprocess.Process, query: str) -> RetrieveResponse:
    async with Mesh(f"unix:{home.tool_socket('package_search', pid=process.pid)}") as mesh:
        return await PackageSearchStub(mesh.channel).Retrieve(RetrieveRequest(query=query), timeout=30)


async def test_process_gets_ready_answers_and_stops_clean(home: Home) -> None:
    process = await start(home, STATUS)
    try:
        async with asyncio.timeout(60):
            await until_serving(process)
            found = await retrieve(home, process, "json processor")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

    assert found.passages[0].citation.title == "jq 1.6-2.1"
    assert list(home.tools.iterdir()) == []


async def test_where_there_is_no_dpkg_it_runs_and_says_why_it_answers_nobody(home: Home, tmp_path: Path) -> None:
    process = await start(home, tmp_path / "status")
    try:
        async with asyncio.timeout(60):
            log = await until_serving(process)
            with pytest.raises(Unavailable, match="no list of installed Debian packages") as told:
                await retrieve(home, process, "json processor")
    finally:
        process.kill()
        await process.communicate()

    assert told.value.reason == "NO_PACKAGES"
    assert "no dpkg here: every call is UNAVAILABLE" in log
    assert "leave it out of the mesh file" in log
