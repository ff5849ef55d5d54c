"""A fleet on a real mesh: tools in a few processes, the gateway, Envoy, and calls through it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any as Untyped

import grpc
import grpc.aio

from llmesh.identity import DevCaller
from tests.bench.fleet_contracts import ownership, service_of
from tests.bench.processes import cpu_s
from tests.e2e.mesh import REPO, RunningMesh, running_mesh

SERVERS = 5
# Tools that share a socket.
EACH = 50
CALLERS = 8
# Someone whom the default policy lets read all of the fleet.
CALLER = DevCaller("ada", domain="engineering")
RECONNECT_SOON = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))
# How often a tool that cannot be called yet is called again: each time costs the mesh what a call does.
PAUSE_S = 0.05
MIB = 1 << 20


@dataclass(slots=True)
class Server:
    """A process of the fleet's tools."""

    process: subprocess.Popen[str]

    def ask(self, line: str) -> str:
        """What it answers to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError("a server of the fleet ended")
        return line

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@dataclass(slots=True)
class Fleet:
    """Tools 0 to count - 1, served; and the mesh that is to route them."""

    mesh: RunningMesh
    servers: Sequence[Server]
    count: int
    bearer: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Sign a caller in."""
        self.bearer = (("authorization", f"Bearer {self.mesh.token(CALLER)}"),)

    def start(self) -> None:
        """Start gateway and Envoy."""
        self.mesh.start_gateway()
        self.mesh.start_envoy()

    def channel(self) -> grpc.aio.Channel:
        """A channel of its own to Envoy."""
        return grpc.aio.insecure_channel(
            self.mesh.address, options=(*RECONNECT_SOON, ("grpc.use_local_subchannel_pool", 1))
        )

    async def call(self, channel: grpc.aio.Channel, number: int) -> None:
        """Call a tool. Raises AioRpcError."""
        untyped: Untyped = channel
        call = untyped.unary_unary(f"/{service_of(number)}/Get")
        assert await call(b"\n\x011", metadata=self.bearer, timeout=5) == b"\n\x011"

    async def failures(self, ended: asyncio.Event) -> int:
        """Failed calls of tools all over the fleet, one after another, until told to end."""
        failed, number = 0, 0
        async with self.channel() as channel:
            while not ended.is_set():
                number = (number + 7) % self.count
                try:
                    await self.call(channel, number)
                except grpc.aio.AioRpcError:
                    failed += 1
                await asyncio.sleep(PAUSE_S)
        return failed

    async def until_callable(self, numbers: Iterable[int], *, pause_s: float = PAUSE_S) -> None:
        """Return when each of the tools has answered a call."""
        waiting = iter(numbers)

        async def sweep(channel: grpc.aio.Channel) -> None:
            for number in waiting:
                while not await self._answers(channel, number):  # noqa: ASYNC110 - Envoy has no event
                    await asyncio.sleep(pause_s)

        async with self.channel() as channel, asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(sweep(channel))

    async def _answers(self, channel: grpc.aio.Channel, number: int) -> bool:
        try:
            await self.call(channel, number)
        except grpc.aio.AioRpcError:
            return False
        return True

    def pid(self, name: str) -> int:
        """The process id of the gateway or of Envoy."""
        return next(each.pid for each in self.mesh.processes if each.name == name)

    def memory_mib(self, name: str) -> float:
        """What the gateway or Envoy holds in memory (RSS)."""
        text = Path(f"/proc/{self.pid(name)}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / MIB

    def cpu_s(self, name: str) -> float:
        """CPU time of the gateway, of Envoy, or, together, of the `tools`."""
        pids = [each.process.pid for each in self.servers] if name == "tools" else [self.pid(name)]
        return sum(map(cpu_s, pids))


@contextmanager
def fleet(count: int) -> Generator[Fleet]:
    """A fleet whose tools are served, and a mesh that knows where, not yet started."""
    with running_mesh(start=False) as mesh, ExitStack() as stopping:
        (mesh.folder / "policies/ownership.yaml").write_text(ownership())
        (mesh.folder / "policies/domains/testing.yaml").unlink()
        sockets = mesh.folder / "s"
        sockets.mkdir(mode=0o700)
        servers = [_start(sockets, *part) for part in _parts(count)]
        for server in servers:
            stopping.callback(server.stop)
        for server in servers:
            assert server.hear() == "ready"
        shared = [number for first, many in _parts(count) for number in range(first, first + many, EACH)]
        mesh.write_file(endpoints=[{"address": f"unix:{sockets / f'{first}.sock'}"} for first in shared])
        yield Fleet(mesh, servers, count)


def _parts(count: int) -> list[tuple[int, int]]:
    each = max(1, -(-count // SERVERS))
    return [(first, min(each, count - first)) for first in range(0, count, each)] or [(0, 0)]


def _start(folder: Path, first: int, count: int) -> Server:
    argv = (sys.executable, "-m", "tests.bench.fleet_server", str(folder), *map(str, (first, count, EACH)))
    pipe = subprocess.PIPE
    return Server(subprocess.Popen(argv, cwd=REPO, stdin=pipe, stdout=pipe, text=True))


async def change_s(fleet: Fleet, number: int) -> float:
    """Add a tool and take it away again: seconds from its being ready to its first good call."""
    server = fleet.servers[0]
    async with fleet.channel() as channel:
        await channel.channel_ready()
        calling = asyncio.create_task(_first_good(fleet, channel, number))
        ready_s = float((await asyncio.to_thread(server.ask, f"add {number} {fleet.mesh.home.path}")).split()[1])
        good_s = await calling
    assert await asyncio.to_thread(server.ask, "drop") == "dropped"
    return good_s - ready_s


async def _first_good(fleet: Fleet, channel: grpc.aio.Channel, number: int) -> float:
    while True:
        try:
            await fleet.call(channel, number)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.002)
        else:
            return time.monotonic()
