"""A mesh of echo tools below a supervisor, faults for its processes, and traffic that counts what fails."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.supervisor.control import Restarted, ask_restart
from llmesh.supervisor.state import ChildState, Condition, read_state
from tests.e2e.mesh import ECHO, OWNER, REPO, RunningMesh, running_mesh
from tests.e2e.traffic import Traffic
from tests.eventually import eventually

WITHIN_S = 60.0
CALL_S = 60.0
START_S = 120.0
# Nothing is silent for so long because the machine is slow.
PATIENT_S = 120.0
# Each caller has connections of its own; what is not answered is asked again, as gRPC does by itself where told to.
ALONE = (("grpc.use_local_subchannel_pool", 1),)
AGAIN = {
    "maxAttempts": 5,
    "initialBackoff": "1s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
PATIENT = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": AGAIN}]})
# Some calls are in the tool's hands at any moment.
ORDERS = pb.Orders(delay=Duration(nanos=5_000_000))


@dataclass(frozen=True, slots=True)
class Supervised:
    """A mesh whose processes a supervisor brings back."""

    mesh: RunningMesh

    def child(self, name: str) -> ChildState:
        """What the supervisor says of a process now."""
        state = read_state(self.mesh.home)
        assert state is not None, self.mesh.said()
        return next(each for each in state.children if each.name == name)

    def send(self, name: str, number: signal.Signals) -> int:
        """Send a process a signal; its process id."""
        pid = self.child(name).pid
        os.kill(pid, number)
        return pid

    async def replaced(self, name: str, pid: int) -> ChildState:
        """Return when another process than that one runs."""

        async def is_another() -> ChildState:
            child = self.child(name)
            assert child.state is Condition.RUNNING
            assert child.pid != pid
            return child

        return await eventually(is_another, within_s=WITHIN_S)

    async def restart(self, *names: str) -> Sequence[Restarted]:
        """As `llmesh restart`."""
        return await asyncio.to_thread(lambda: list(ask_restart(self.mesh.home, names)))

    @contextmanager
    def fault(self, name: str, text: str = "") -> Generator[None]:
        """A fault of boss.py or odd_gateway.py, for as long as the block lasts."""
        path = self.mesh.home.path / name
        # Whole at once: it is looked at all the time.
        draft = path.with_suffix(".new")
        draft.write_text(text)
        draft.replace(path)
        try:
            yield
        finally:
            path.unlink()

    @contextmanager
    def clock_set(self, name: str, step_s: int) -> Generator[None]:
        """The wall clock of a tool is off for as long as the block lasts."""
        clock = self.mesh.home.path / f"{name}.clock"
        clock.write_text(f"{step_s:+}")
        try:
            yield
        finally:
            clock.write_text("+0")

    @contextmanager
    def full_disk(self, *names: str) -> Generator[None]:
        """No file of these processes can grow for as long as the block lasts: writes fail as on a full disk."""
        limits = {self.child(name).pid: resource.prlimit(self.child(name).pid, resource.RLIMIT_FSIZE) for name in names}
        for pid, (_, most) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
        try:
            yield
        finally:
            for pid, limit in limits.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)

    def read(self, channel: grpc.aio.Channel) -> Awaitable[object]:
        """A call that may be sent twice."""
        asked = pb.UnaryRequest(text="a", orders=ORDERS)
        return EchoStub(channel).Unary(asked, metadata=self.mesh.bearer(), timeout=CALL_S)

    def write(self, channel: grpc.aio.Channel) -> Awaitable[object]:
        """A call that may be sent but once."""
        return EchoStub(channel).Erase(pb.EraseRequest(), metadata=self.mesh.bearer(OWNER), timeout=CALL_S)

    async def tools(self, channel: grpc.aio.Channel) -> None:
        """The gateway's own answer. Raises RuntimeError, which nobody tries again for, if it is of an empty catalog."""
        asked = CatalogServiceStub(channel).ListTools(
            catalog.ListToolsRequest(), metadata=self.mesh.bearer(), timeout=CALL_S
        )
        assert ECHO in [tool.service for tool in (await asked).tools]

    async def ready(self, count: int) -> None:
        """Return when the echo is ready at so many endpoints."""
        await asyncio.to_thread(self.mesh.wait_ready, ECHO, count=count, within_s=START_S)

    @asynccontextmanager
    async def traffic(self, *kinds: str) -> AsyncGenerator[Load]:
        """Calls of these kinds all the while.

        "reads", "writes", "new connections"; "patient": reads of a client that
        tries again; "catalog": asks the gateway itself.
        """
        async with AsyncExitStack() as stack:
            options = (*ALONE, ("grpc.service_config", PATIENT)) if "patient" in kinds else ALONE
            channel = grpc.aio.insecure_channel(self.mesh.address, options=options)
            await stack.enter_async_context(channel)

            async def connect_and_read() -> None:
                async with grpc.aio.insecure_channel(self.mesh.address, options=ALONE) as own:
                    await self.read(own)

            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "reads": lambda: self.read(channel),
                "patient": lambda: self.read(channel),
                "writes": lambda: self.write(channel),
                "new connections": connect_and_read,
                "catalog": lambda: self.tools(channel),
            }
            yield Load([await stack.enter_async_context(Traffic(calls[kind], at_once=2)) for kind in kinds])


@dataclass(frozen=True, slots=True)
class Load:
    """The traffic of a test."""

    traffics: Sequence[Traffic]

    @property
    def failures(self) -> dict[str, int]:
        """What failed, by its code and words."""
        return {words: count for each in self.traffics for words, count in each.failures.items()}

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return sum(each.outcomes.total() for each in self.traffics)

    async def more(self, count: int = 20) -> None:
        """Return when so many further calls of each kind have ended."""
        await asyncio.gather(*(each.more(count) for each in self.traffics))


@contextmanager
def supervised(*tools: str, patience_s: float = PATIENT_S) -> Generator[Supervised]:
    """A mesh with these echo tools, below a supervisor that patient with what hangs, for as long as the block lasts."""
    with running_mesh(start=False) as mesh:
        argv = (sys.executable, "-m", "tests.e2e.boss", str(mesh.home.path), str(mesh.file), str(patience_s), *tools)
        mesh.start("boss", argv, folder=REPO)
        mesh.wait_ready(ECHO, count=len(tools), within_s=START_S)
        yield Supervised(mesh)
