"""Envoy's call log on a disk that hangs: no call waits for it, and no line is lost."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import termios

import grpc

from llmesh.admin import ask_socket
from llmesh.supervisor.rotation import REOPEN, put_aside
from tests.envoy import Mesh, bearer, call, mesh, token
from tests.eventually import eventually

SERVICE = "acme.support.v1.Tickets"
# Their lines come to more than what Envoy gathers before it writes, 64 KiB, and by far to more than the pipe holds.
CALLS = 400
PIPE_BYTES = 4096


def hang(running: Mesh) -> int:
    """Have Envoy write to a pipe that nobody empties, which is to it a disk that hangs; the pipe's other end."""
    path = running.folder / "calls.jsonl"
    put_aside(path, 1)
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    ask_socket(running.folder / "admin.sock", REOPEN, method="POST")
    return end


def waiting_bytes(end: int) -> int:
    """How much is in the pipe."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), "little")


async def made_calls(running: Mesh, count: int) -> list[str]:
    """Call so many times; the ids that came back."""
    signed = bearer(token())
    answers = [await call(running.channel, f"/{SERVICE}/Get", signed) for _ in range(count)]
    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}
    return [answer.metadata["x-llmesh-call-id"] for answer in answers]


async def test_a_disk_that_hangs_holds_up_no_call_and_loses_no_line() -> None:
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        end = await asyncio.to_thread(hang, running)
        made: list[str] = []

        async def is_full() -> None:
            made.extend(await made_calls(running, 1))
            assert waiting_bytes(end) > PIPE_BYTES // 2

        await eventually(is_full)
        made += await made_calls(running, CALLS)
        assert waiting_bytes(end) <= PIPE_BYTES
        # What was called before Envoy had opened the pipe.
        read = (running.folder / "calls.jsonl.1").read_bytes()

        async def every_line() -> None:
            nonlocal read
            while waiting_bytes(end):
                read += os.read(end, PIPE_BYTES)
            assert read.count(b"\n") == len(made)

        await eventually(every_line)
        os.close(end)
    assert sorted(json.loads(line)["call_id"] for line in read.splitlines()) == sorted(made)
