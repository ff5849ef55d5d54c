"""The tool as a process of its own, as `llmesh up` starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.writing.v1 import text_pb2 as pb
from acme.writing.v1.text_pb2_grpc import TextStub

from llmesh import Caller
from llmesh.caller import caller_to_metadata

if TYPE_CHECKING:
    from acme.writing.v1.text_pb2_grpc import TextAsyncStub

FOLDER = Path(__file__).resolve().parent.parent
ADA = caller_to_metadata(Caller(issuer="https://id.acme.example", subject="ada"))


async def test_a_process_answers_as_soon_as_it_says_so_and_stops_when_told() -> None:
    # Not pytest's own folder: its path can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llmesh-") as home:
        async with _run(home) as (process, stub):
            measured = await stub.Measure(pb.MeasureRequest(text="The mesh is up."), metadata=ADA)
            assert measured.statistics.word_count == 4
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert list((Path(home) / "run" / "tools").iterdir()) == []


@asynccontextmanager
async def _run(home: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, TextAsyncStub]]:
    """The tool's process and a stub to it, once it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "text",
        cwd=FOLDER,
        env={**os.environ, "LLMESH_HOME": home, "LLMESH_NAME": "text"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        address = await _address(process)
        async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
            yield process, TextStub(channel)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where the process serves, from its log."""
    assert process.stderr
    async with asyncio.timeout(60):
        async for line in process.stderr:
            record = json.loads(line)
            if record["event"] == "serving":
                return record["address"]
    pytest.fail("the process ended without serving")
