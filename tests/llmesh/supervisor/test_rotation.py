"""The call log is put aside under traffic, by the real Envoy's leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc

from llmesh.home import Home
from llmesh.supervisor.rotation import put_aside, rotate_calls_once
from tests.envoy import Mesh, bearer, call, mesh, token
from tests.eventually import eventually

SERVICE = "acme.support.v1.Tickets"
CALLS = 400
ROTATE_BYTES = 8 * 1024


class Here(Home):
    """The folder of an Envoy under test as a mesh directory."""

    @property
    def call_log(self) -> Path:
        return self.path / "calls.jsonl"

    @property
    def admin_socket(self) -> Path:
        return self.path / "admin.sock"


def call_ids(folder: Path) -> list[str]:
    """Of every line of every file of the call log."""
    return [
        json.loads(line)["call_id"] for path in folder.glob("calls.jsonl*") for line in path.read_text().splitlines()
    ]


async def made_calls(running: Mesh, count: int) -> list[str]:
    """Call so many times; the ids that came back."""
    signed = bearer(token())
    answers = [await call(running.channel, f"/{SERVICE}/Get", signed) for _ in range(count)]
    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}
    return [answer.metadata["x-llmesh-call-id"] for answer in answers]


async def test_every_call_has_its_line_whatever_is_put_aside_meanwhile() -> None:
    async with mesh() as running:
        home = Here(running.folder)
        await running.publish(running.tool(SERVICE))
        calling = asyncio.gather(*(made_calls(running, CALLS // 4) for _ in range(4)))
        turns = 0
        while not calling.done():
            before = len(list(running.folder.glob("calls.jsonl.*")))
            await asyncio.to_thread(rotate_calls_once, home, rotate_bytes=ROTATE_BYTES, keep=100)
            turns += len(list(running.folder.glob("calls.jsonl.*"))) - before
        made = [call_id for calls in await calling for call_id in calls]

        async def every_line() -> None:
            assert sorted(call_ids(running.folder)) == sorted(made)

        await eventually(every_line)
        assert turns >= 2


async def test_a_log_put_aside_while_envoy_could_not_be_told_is_opened_anew_later() -> None:
    async with mesh() as running:
        home = Here(running.folder)
        await running.publish(running.tool(SERVICE))
        made = await made_calls(running, 1)
        # As after a supervisor that was killed between the two steps.
        put_aside(home.call_log, 5)
        made += await made_calls(running, 1)
        await asyncio.to_thread(rotate_calls_once, home, rotate_bytes=ROTATE_BYTES, keep=5)

        async def opened() -> None:
            assert home.call_log.exists()

        await eventually(opened)
        made += await made_calls(running, 1)

        async def every_line() -> None:
            assert sorted(call_ids(running.folder)) == sorted(made)
            assert made[-1] in home.call_log.read_text()

        await eventually(every_line)


def test_no_call_log_is_nothing_to_put_aside(tmp_path: Path) -> None:
    rotate_calls_once(Here(tmp_path), rotate_bytes=1, keep=1)
    assert list(tmp_path.iterdir()) == []
