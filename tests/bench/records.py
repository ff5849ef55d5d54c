"""What is lost of the decision records where a process is killed, and what it costs to make one.

Calls are made while the gateway, then Envoy, is killed as `kill -9` does, and
what callers were answered is compared with what is recorded.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.records.ingest import POLL_S
from llmesh._client import open_channel
from tests.bench.figures import Figure
from tests.e2e.mesh import ECHO, REPO, RunningMesh, running_mesh
from tests.eventually import eventually
from tests.gateway.records.lines import Kept, caught_up, line

# The stubs of the tests' own tool.
sys.path.append(str(REPO / "tests/tools/echo"))

from tests.e2e.recorded import Calls, recorded
from tests.e2e.traffic import Traffic

KILLS = 5
CALLS_BETWEEN = 300
WITHIN_S = 60.0
LINES, AT_ONCE, CALLERS = 30_000, 1000, 50


def measure() -> list[Figure]:
    """The figures. Raises AssertionError where records do not come."""
    with running_mesh() as mesh:
        mesh.start_echo()
        mesh.wait_ready(ECHO)
        lost, doubled = asyncio.run(_gateway_kills(mesh))
        widths_s = asyncio.run(_envoy_kills(mesh))
    return [
        Figure("audit_lost_gateway_kill", lost, "records", 0),
        Figure("audit_doubled", doubled, "records", 0),
        Figure("audit_lost_envoy_kill_ms", 1000 * max(widths_s), "ms", 250),
        Figure("audit_ingest_cpu_us", _ingest_cpu_s() * 1e6, "us"),
    ]


async def _gateway_kills(mesh: RunningMesh) -> tuple[int, int]:
    """Records that are missing, and that there are too many, after calls below which the gateway was killed."""
    async with open_channel(mesh.address) as channel:
        calls = Calls(mesh, channel)
        async with Traffic(calls.read) as reads, Traffic(calls.write, at_once=1):
            for _ in range(KILLS):
                [gateway] = [each for each in mesh.processes if each.name == "gateway" and each.alive]
                gateway.kill()
                await reads.more(CALLS_BETWEEN)
                mesh.start_gateway()
                # It is at work on what it has missed when it is killed again.
                await eventually(lambda: recorded(mesh, channel), within_s=WITHIN_S)
        found = await _settled(mesh, calls)
    missing = sum(not found.get(key) for key in calls.expected)
    return missing, sum(found.get(key, 0) - 1 for key in calls.expected if found.get(key))


async def _envoy_kills(mesh: RunningMesh) -> list[float]:
    """Of each kill of Envoy: from the answer of the first call of which there is no record to the kill, in seconds."""
    return [await _envoy_kill(mesh) for _ in range(KILLS)]


async def _envoy_kill(mesh: RunningMesh) -> float:
    async with open_channel(mesh.address) as channel:
        calls = Calls(mesh, channel)
        async with Traffic(calls.read) as reads:
            await reads.more(CALLS_BETWEEN)
            [envoy] = [each for each in mesh.processes if each.name == "envoy" and each.alive]
            killed_s = time.monotonic()
            envoy.kill()
    mesh.start_envoy()
    found = await _settled(mesh, calls)
    lost = [calls.answered_s(call_id) for call_id, phase in calls.expected if not found.get((call_id, phase))]
    return max(killed_s - min(lost), 0.0) if lost else 0.0


async def _settled(mesh: RunningMesh, calls: Calls) -> dict[tuple[str, int], int]:
    """What is recorded, once a call that was made after those is."""
    async with open_channel(mesh.address) as channel:
        last = Calls(mesh, channel)
        await eventually(last.read, within_s=WITHIN_S)

        async def is_there() -> dict[tuple[str, int], int]:
            found = await recorded(mesh, channel)
            assert last.expected <= found.keys()
            # Those of files that were put aside come with it, or a little later.
            if not calls.expected <= found.keys():
                await asyncio.sleep(10 * POLL_S)
                found = await recorded(mesh, channel)
            return found

        return await eventually(is_there, within_s=WITHIN_S)


def _ingest_cpu_s() -> float:
    """CPU time of a record, from its line in the call log to the disk."""
    with tempfile.TemporaryDirectory(prefix="records-") as name:
        kept = Kept(Path(name))
        ingest = kept.ingest()
        caught_up(ingest)
        lines = [*_lines()]
        began_s = time.process_time()
        for first in range(0, LINES, AT_ONCE):
            kept.log(*lines[first : first + AT_ONCE])
            caught_up(ingest)
        took_s = time.process_time() - began_s
        assert ingest.made == LINES
        if kept.engine:
            kept.engine.dispose()
    return took_s / LINES


def _lines() -> Iterator[bytes]:
    for number in range(LINES):
        second, millisecond = divmod(number, 1000)
        yield line(caller=f"caller-{number % CALLERS}", time=f"2026-01-31T12:00:{second:02}.{millisecond:03}Z")
