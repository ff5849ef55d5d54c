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
from acme.support.v1 import tickets_pb2 as pb
from acme.support.v1.tickets_pb2_grpc import TicketsStub

from llmesh import Caller
from llmesh.caller import caller_to_metadata

if TYPE_CHECKING:
    from acme.support.v1.tickets_pb2_grpc import TicketsAsyncStub

FOLDER = Path(__file__).resolve().parent.parent
ADA = caller_to_metadata(Caller(issuer="https://id.acme.example", subject="ada"))


async def test_an_answered_ticket_outlives_a_process_that_is_killed() -> None:
    # Not pytest's own folder: its path can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llmesh-") as home:
        async with _run(home) as (process, stub):
            made = await stub.CreateTicket(pb.CreateTicketRequest(title="Cannot sign in"), metadata=ADA)
            process.kill()
            await process.wait()
        async with _run(home) as (process, stub):
            assert await stub.GetTicket(pb.GetTicketRequest(id="T-1"), metadata=ADA) == pb.GetTicketResponse(
                ticket=made.ticket
            )
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert (Path(home) / "state" / "tickets.db").stat().st_mode & 0o777 == 0o600


async def test_without_a_mesh_directory_it_says_so_and_makes_none(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    environment.pop("LLMESH_HOME", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tickets", cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"no mesh directory" in said
    assert not (tmp_path / ".llmesh").exists()


async def test_a_damaged_store_is_told_in_words_and_left_as_it_is() -> None:
    with tempfile.TemporaryDirectory(prefix="llmesh-") as home:
        path = Path(home) / "state" / "tickets.db"
        path.parent.mkdir(mode=0o700)
        path.write_bytes(b"no database" * 1000)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tickets",
            cwd=FOLDER,
            env={**os.environ, "LLMESH_HOME": home},
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert process.returncode == 1
        assert said.decode() == (
            f"tickets: the ticket store `{path}` cannot be opened: file is not a database; "
            "put a copy back, or move it away\n"
        )
        assert path.read_bytes() == b"no database" * 1000


@asynccontextmanager
async def _run(home: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, TicketsAsyncStub]]:
    """The tool's process and a stub to it, once it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tickets",
        cwd=FOLDER,
        env={**os.environ, "LLMESH_HOME": home, "LLMESH_NAME": "tickets"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        address = await _address(process)
        async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
            yield process, TicketsStub(channel)
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
