"""The tool as it runs: a process of its own, in a mesh directory, no gateway there."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchStub

from llmesh import Mesh
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest, RetrieveResponse
from llmesh.home import Home

TOOL = Path(__file__).resolve().parent.parent


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # pytest's own paths are too long for a socket
        yield Home.find(Path(folder) / "m").create()


async def start(home: Home, *arguments: str) -> asyncio.subprocess.Process:
    env = {**os.environ, "LLMESH_HOME": str(home.path), "LLMESH_NAME": "handbook"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "search", *arguments, cwd=TOOL, env=env, stderr=-1
    )


async def until_serving(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    log = b""
    while b'"serving"' not in log:
        line = await process.stderr.readline()
        assert line, log.decode()
        log += line


async def retrieve(home: Home, process: asyncio.subprocess.Process, query: str) -> RetrieveResponse:
    async with Mesh(f"unix:{home.tool_socket('handbook', pid=process.pid)}") as mesh:
        return await HandbookSearchStub(mesh.channel).Retrieve(RetrieveRequest(query=query), timeout=30)


async def test_process_gets_ready_answers_and_stops_clean(home: Home) -> None:
    process = await start(home)
    try:
        async with asyncio.timeout(60):
            await until_serving(process)
            found = await retrieve(home, process, "handbook search scores")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

    assert found.passages[0].citation.location == "tools/handbook/search/README.md#scores"
    assert list(home.tools.iterdir()) == []


async def test_process_searches_the_folder_it_is_given(home: Home, tmp_path: Path) -> None:
    tmp_path.joinpath("README.md").write_text("# Elsewhere\n\nAnother handbook.")
    process = await start(home, "--root", str(tmp_path))
    try:
        async with asyncio.timeout(60):
            await until_serving(process)
            found = await retrieve(home, process, "handbook")
    finally:
        process.kill()
        await process.communicate()

    assert [passage.citation.title for passage in found.passages] == ["Elsewhere"]


async def test_folder_that_is_not_there_is_named(home: Home, tmp_path: Path) -> None:
    process = await start(home, "--root", str(tmp_path / "nothing"))
    _, told = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 2
    assert f"`{tmp_path / 'nothing'}` is not a folder".encode() in told
