"""The tool as it runs: a process of its own, in a mesh directory, no gateway there."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchStub

from llmesh import Mesh
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest
from llmesh.home import Home

TOOL = Path(__file__).resolve().parent.parent


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # pytest's own paths are too long for a socket
        yield Home.find(Path(folder) / "m").create()


@asynccontextmanager
async def started(home: Home) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """The running tool and its address, once it serves."""
    env = {**os.environ, "LLMESH_HOME": str(home.path), "LLMESH_NAME": "doc_search"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "doc_search", cwd=TOOL, env=env, stderr=-1)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            log = b""
            while b'"serving"' not in log:
                line = await process.stderr.readline()
                assert line, log.decode()
                log += line
        yield process, f"unix:{home.tool_socket('doc_search', pid=process.pid)}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def title_of_first(address: str, query: str) -> str:
    async with Mesh(address) as mesh:
        found = await DocSearchStub(mesh.channel).Retrieve(RetrieveRequest(query=query), timeout=60)
    return found.passages[0].citation.title


async def test_process_builds_serves_and_stops_clean(home: Home) -> None:
    async with started(home) as (process, address):
        assert await title_of_first(address, "asyncio timeout") == "asyncio.timeout"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert not home.tools.joinpath(address.rpartition("/")[2]).exists()


async def test_process_without_a_mesh_directory_says_what_to_do(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(TOOL)} | {"LLMESH_HOME": ""}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "doc_search", cwd=tmp_path, env=env, stderr=-1)
    _, told = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 1
    assert b"run `llmesh up`, or set LLMESH_HOME" in told
    assert not tmp_path.joinpath(".llmesh").exists()
