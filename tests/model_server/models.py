"""A model server of the tests' own, as a process of .venv-model, and what it answers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from typing import Any as Untyped

import grpc.aio
from grpc_health.v1 import health_pb2  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.caller import Caller, caller_to_metadata
from tests.e2e.mesh import OWNER, REPO, RunningMesh, free_port
from tests.e2e.process import Process
from tests.eventually import eventually

if TYPE_CHECKING:
    from llmesh.api.model.v1.model_pb2_grpc import ModelServiceAsyncStub

PYTHON = REPO / ".venv-model/bin/python"
NAME = "model_server"
SERVICE = "llmesh.api.model.v1.ModelService"
WRITER, EMBEDDER = "llmesh/tiny-random", "sentence-transformers/all-MiniLM-L6-v2"
# Of the model server that tests share: texts that are written at once, and calls that wait.
AT_ONCE, WAITING = 4, 3
# Of these, as many may be one caller's. So there are two where all places are to be taken.
SHARE = (AT_ONCE + WAITING + 1) // 2
CALLERS = (Caller(issuer="corp", subject="ada"), Caller(issuer="corp", subject="bob"))
METRICS_PORT = free_port()
# A server and its engine import for seconds each on a machine that has time for them.
START_S = 600.0
CALL_S = 120.0


BUILD = """
import pathlib, sys
from model_server.placeholder import build_placeholder
build_placeholder(pathlib.Path(sys.argv[1])).rename(sys.argv[2])
"""


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A model server that runs, perhaps beside a mesh."""

    mesh: RunningMesh
    process: Process

    @property
    def socket(self) -> Path:
        """Where it is called past the mesh."""
        return self.mesh.home.tool_socket(NAME, pid=self.process.pid)

    @asynccontextmanager
    async def direct(self, *more: tuple[str, int]) -> AsyncGenerator[grpc.aio.Channel]:
        """A channel to it, past the mesh. more: options."""
        options = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1), *more)
        async with grpc.aio.insecure_channel(f"unix:{self.socket}", options=options) as channel:
            yield channel

    @asynccontextmanager
    async def stub(self) -> AsyncGenerator[ModelServiceAsyncStub]:
        """Its methods, past the mesh."""
        async with self.direct() as channel:
            yield ModelServiceStub(channel)

    async def health(self, service: str = "") -> health_pb2.HealthCheckResponse.ServingStatus:
        """What it says of its health."""
        async with self.direct() as channel:
            check = cast(
                "Callable[..., Awaitable[bytes]]",
                channel.unary_unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest.SerializeToString),
            )
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
        return health_pb2.HealthCheckResponse.FromString(answer).status

    async def wait_ready(self) -> None:
        """Return once all its models answer."""

        async def is_ready() -> None:
            if not self.process.alive:
                raise RuntimeError(f"it has ended (`make model` makes its environment): {self.process.said()[-3000:]}")
            async with self.stub() as stub:
                listed = await stub.ListModels(pb.ListModelsRequest(), timeout=CALL_S)
            assert all(model.ready for model in listed.models), self.process.said()[-3000:]

        await eventually(is_ready, within_s=START_S, pause_s=0.1)


def start_models(mesh: RunningMesh, *arguments: str, env: Mapping[str, str] | None = None) -> ModelServer:
    """Start one; its models are not ready yet."""
    return ModelServer(mesh, mesh.start(NAME, (str(PYTHON), "-P", "-m", "model_server", *arguments), env=env))


def build_model(folder: Path) -> None:
    """Put a model where there is none, as anybody may have one."""
    argv = (PYTHON, "-P", "-c", BUILD, folder.parent, folder)
    subprocess.run(argv, capture_output=True, timeout=START_S, check=True)


async def wait_answered(mesh: RunningMesh) -> None:
    """Return once calls through the mesh are answered: Envoy looks at the server's health by itself."""
    async with llmesh.Mesh(mesh.address, mesh.token(OWNER)) as client:
        stub = ModelServiceStub(client.channel)
        await eventually(lambda: stub.ListModels(pb.ListModelsRequest(), timeout=CALL_S), within_s=START_S, pause_s=0.2)


async def pieces(
    stub: ModelServiceAsyncStub, request: pb.GenerateRequest, *, by: Caller | None = None
) -> list[pb.GenerateResponse]:
    """All that is written. by: who calls, past the mesh."""
    call = stub.Generate(request, metadata=caller_to_metadata(by) if by else None, timeout=CALL_S)
    return [piece async for piece in call]


async def everybody_is_served(stub: ModelServiceAsyncStub) -> None:
    """Were a single text still being written that nobody waits for, one of these would find the queue full."""
    calls = (pieces(stub, asked(max_tokens=2), by=CALLERS[number % 2]) for number in range(AT_ONCE + WAITING))
    assert all(answer[-1].finish_reason for answer in await asyncio.gather(*calls))


def asked(prompt: str = "What is a mesh?", **sampling: Untyped) -> pb.GenerateRequest:
    """A request for text after a prompt."""
    return pb.GenerateRequest(prompt=prompt, sampling=pb.Sampling(**sampling))


def chat(*contents: str, **sampling: Untyped) -> pb.GenerateRequest:
    """A request for text after a user's words."""
    messages = [pb.ChatMessage(role=pb.ROLE_USER, content=each) for each in contents]
    conversation = pb.Conversation(messages=messages)
    return pb.GenerateRequest(conversation=conversation, sampling=pb.Sampling(**sampling))


def processes_below(pid: int) -> list[int]:
    """The process and all that it has started, by their ids."""
    found, waiting = list[int](), [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            # A thread that ends meanwhile has none.
            with suppress(OSError):
                waiting.extend(map(int, path.read_text().split()))
    return found


def named_below(pid: int, *names: str) -> list[int]:
    """Of these processes, those whose title begins with one of the names."""
    return [each for each in processes_below(pid) if _title(each).startswith(names)]


def starting_below(pid: int) -> list[int]:
    """Of these processes, those of an engine, or of what is to be one; not those that look for its model."""
    return [each for each in processes_below(pid) if each != pid and "model_server.finding" not in _title(each)]


def alive(pids: Sequence[int]) -> list[int]:
    """Those that still run, and are not merely unburied."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
