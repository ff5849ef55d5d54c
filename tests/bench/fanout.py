"""What a fan-out costs: against a Python client that makes the same calls itself, through the same mesh.

Tools, gateway, Envoy and client share the machine. The gateway also makes a
record of each call, afterwards: what it takes for that is measured by the
client's own calls, and is no part of a fan-out's cost.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any as Untyped

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any

from gateway.reading.calls import as_sent
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceStub
from llmesh.supervisor import plan
from tests.bench.fanout_tools import CHUNK_BYTES, PACKAGE, SLOW_S, services
from tests.bench.figures import Figure
from tests.bench.processes import cpu_s, started
from tests.e2e.mesh import OWNER, REPO, RunningMesh, running_mesh

COUNT = 64
AT_ONCE = 8
BUDGET_S, LATE_S = 1.0, 0.02
READ_BYTES_PER_S, READ_S = 3 << 20, 15
REQUEST = b"\n\x3f" + b"q" * 63
BUDGETS = 1000
LEAKS, LEAK_FIRST, LEAKS_A_CONNECTION, LEAK_BRANCHES = 20_000, 6000, 400, 4
# Channels that are alike would share a connection.
LOCAL = (("grpc.use_local_subchannel_pool", 1),)
CHAOS = 3


@dataclass(slots=True)
class Bench:
    """A running mesh with the tools, and a client. gateway, envoy: their processes."""

    mesh: RunningMesh
    channel: grpc.aio.Channel
    tools: str
    gateway: int
    envoy: int

    def fan_out(self, method: str, *, timeout_s: float = 60, data: bytes = REQUEST, **asked: Untyped) -> Untyped:
        """One fan-out of a method's request, as a call that streams."""
        request = Any(type_url=f"type.googleapis.com/{PACKAGE}.{method}Request", value=data)
        stub: Untyped = MeshServiceStub(self.channel)
        sent = pb.FanOutRequest(request=request, **asked)
        return stub.FanOut(sent, metadata=self.mesh.bearer(OWNER), timeout=timeout_s)

    async def summed(self, method: str, **asked: Untyped) -> pb.Summary:
        """How a fan-out ended."""
        summary = pb.Summary()
        async for message in self.fan_out(method, **asked):
            summary = message.summary
        return summary

    async def all_answer(self, method: str, count: int) -> None:
        """A fan-out that so many answer."""
        summary = await self.summed(method)
        if summary.answered_count != count:
            raise RuntimeError(f"of {count} branches to {method}, {summary.answered_count} answered: {summary}")

    async def call_each(self, method: str, count: int) -> None:
        """The same by the client itself."""
        metadata = self.mesh.bearer(OWNER)
        calls: list[Untyped] = []
        for service in services(count):
            call: Untyped = self.channel.unary_unary(
                f"/{service}/{method}", request_serializer=as_sent, response_deserializer=as_sent
            )
            calls.append(call(REQUEST, metadata=metadata, timeout=60))
        for call in calls:
            await call


def measure() -> list[Figure]:
    """The figures."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, running_mesh(start=False) as mesh:
        socket = str(Path(name) / "tools.sock")
        tools = (sys.executable, "-m", "tests.bench.fanout_tools", socket, str(COUNT))
        with started(tools, log=Path(name) / "tools.log", cwd=REPO):
            mesh.write_file(endpoints=[{"address": f"unix:{socket}"}])
            gateway, envoy = mesh.start_gateway(), _start_envoy(mesh)
            mesh.wait_ready(*services(COUNT))
            return asyncio.run(_measure(mesh, f"unix:{socket}", gateway.pid, envoy))


def _start_envoy(mesh: RunningMesh) -> int:
    plan.write_bootstrap(mesh.home, mesh.file)
    return mesh.start("envoy", plan.envoy(mesh.home).argv).pid


async def _measure(mesh: RunningMesh, tools: str, gateway: int, envoy: int) -> list[Figure]:
    options = (("grpc.max_receive_message_length", 32 << 20), ("grpc.http2.lookahead_bytes", 1 << 16))
    async with grpc.aio.insecure_channel(mesh.address, options=options) as channel:
        bench = Bench(mesh, channel, tools, gateway, envoy)
        return [
            *await _cost(bench, 8, "Few", rounds=400, target_ms=1.4, target_rate=0.4),
            *await _cost(bench, 64, "Ask", rounds=60, target_ms=5.5, target_rate=0.75),
            await _latency(bench),
            await _budget(bench),
            await _leak(bench),
            await _memory(bench),
            # Last: it kills Envoy.
            await _writes(bench),
        ]


async def _load(job: Callable[[], Awaitable[None]], times: int) -> float:
    """How often a second a job is done, so many times in all."""
    left = iter(range(times))

    async def work() -> None:
        for _ in left:
            await job()

    began_s = time.monotonic()
    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(work())
    return times / (time.monotonic() - began_s)


async def _cost(
    bench: Bench, count: int, method: str, *, rounds: int, target_ms: float, target_rate: float
) -> Sequence[Figure]:
    costs: list[float] = []
    rates: list[float] = []
    for _ in range(3):
        before = await _settled(bench)
        own_rate = await _load(lambda: bench.call_each(method, count), rounds)
        recorded_s = await _settled(bench) - before
        before = cpu_s(bench.gateway)
        rate = await _load(lambda: bench.all_answer(method, count), rounds)
        costs.append((await _settled(bench) - before - recorded_s) / rounds * 1000)
        rates.append(rate / own_rate)
    return (
        Figure(f"fanout{count}_gateway_cpu_ms", statistics.median(costs), "ms", target_ms),
        Figure(f"fanout{count}_rate_vs_client", statistics.median(rates), "ratio", target_rate, ">="),
    )


async def _settled(bench: Bench) -> float:
    """The gateway's CPU time once it has recorded what was served."""
    before = cpu_s(bench.gateway)
    while True:
        await asyncio.sleep(1)
        after = cpu_s(bench.gateway)
        if after - before < 0.05:
            return after
        before = after


async def _latency(bench: Bench) -> Figure:
    async def p50(job: Callable[[], Awaitable[None]]) -> float:
        took: list[float] = []
        for _ in range(100):
            began_s = time.monotonic()
            await job()
            took.append(time.monotonic() - began_s)
        return statistics.median(took)

    async def eight() -> None:
        await bench.summed("Slow", selector=pb.Selector(limit=8))

    own_s = await p50(lambda: bench.call_each("Slow", 8))
    return Figure("fanout8_p50_vs_client_20ms", await p50(eight) / own_s, "ratio", 1.15)


async def _budget(bench: Bench) -> Figure:
    misses = 0

    async def one() -> None:
        nonlocal misses
        began_s = time.monotonic()
        answered = 0
        # Where its time is up before the summary has come, a stream is broken off.
        with suppress(grpc.aio.AioRpcError):
            summary = await bench.summed("Faulty", timeout_s=BUDGET_S, completion=pb.COMPLETION_BEST_EFFORT)
            answered = summary.answered_count
        late = time.monotonic() - began_s > BUDGET_S + LATE_S
        misses += late or answered != COUNT - 16

    await _load(one, BUDGETS)
    return Figure("fanout64_budget_misses", float(misses), "fan-outs", 0)


async def _leak(bench: Bench) -> Figure:
    """Growth of the gateway over fan-outs of which half are broken off; the first answer ends the others'."""
    await _break_off_half(bench, LEAK_FIRST)
    await _settled(bench)
    before = _resident_bytes(bench.gateway)
    await _break_off_half(bench, LEAKS)
    await _settled(bench)
    return Figure("fanout_leak_bytes", max(0.0, (_resident_bytes(bench.gateway) - before) / LEAKS), "bytes", 100)


async def _break_off_half(bench: Bench, times: int) -> None:
    """So many fan-outs, by connections of their own: Envoy ends one on which too much is broken off."""
    some = pb.Selector(limit=LEAK_BRANCHES)
    for _ in range(times // LEAKS_A_CONNECTION):
        async with grpc.aio.insecure_channel(bench.mesh.address, options=LOCAL) as channel:
            own = replace(bench, channel=channel)

            async def half(own: Bench = own) -> None:
                await own.summed("Ask", completion=pb.COMPLETION_FIRST_OK, selector=some)
                call = own.fan_out("Slow", selector=some)
                # Its branches are under way by then.
                await asyncio.sleep(SLOW_S / 2)
                call.cancel()
                with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                    await call.code()

            await _load(half, LEAKS_A_CONNECTION // 2)


async def _writes(bench: Bench) -> Figure:
    """Of writes while Envoy is killed and started anew, those that a tool saw twice."""
    number = 0
    running = True

    async def write() -> None:
        nonlocal number
        while running:
            number += 1
            text = f"write {number}".encode()
            try:
                await bench.summed("Write", data=b"\n" + bytes([len(text)]) + text, allow_writes=True, timeout_s=5)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(write())
        for _ in range(CHAOS):
            await asyncio.sleep(1.5)
            envoy = next(each for each in reversed(bench.mesh.processes) if each.name == "envoy")
            await asyncio.to_thread(envoy.kill)
            bench.envoy = await asyncio.to_thread(_start_envoy, bench.mesh)
        await asyncio.sleep(1.5)
        running = False
    async with grpc.aio.insecure_channel(bench.tools) as channel:
        ask: Untyped = channel.unary_unary("/bench/Twice", request_serializer=as_sent, response_deserializer=as_sent)
        return Figure("fanout_writes_doubled", float(await ask(b"", timeout=10)), "writes", 0)


async def _memory(bench: Bench) -> Figure:
    """Growth of gateway and Envoy while 64 streams of 100 MB each go to a reader of 3 MB a second."""
    before = _resident_bytes(bench.gateway) + _resident_bytes(bench.envoy)
    peak, read, began_s = before, 0, time.monotonic()
    call = bench.fan_out("Stream", timeout_s=120)
    async for message in call:
        read += sum(len(each.responses) for each in message.branches) * CHUNK_BYTES
        peak = max(peak, _resident_bytes(bench.gateway) + _resident_bytes(bench.envoy))
        await asyncio.sleep(max(0.0, read / READ_BYTES_PER_S - (time.monotonic() - began_s)))
        if time.monotonic() - began_s > READ_S:
            break
    call.cancel()
    return Figure("fanout64_peak_mb", (peak - before) / 1e6, "MB", 250)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
