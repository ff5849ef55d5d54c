"""The servers that are compared, on one mesh: ours, and vLLM's own with the same model."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc

from gateway.reading.calls import as_sent
from model_server.vllm_engine import ENVIRONMENT
from tests.bench.model_ways import METHOD, REQUEST, TIMEOUT_S, OverGrpc, OverHttp
from tests.bench.up import RECONNECT_SOON
from tests.e2e.mesh import OWNER, RunningMesh, free_port
from tests.e2e.process import Process
from tests.model_server.models import PYTHON, SERVICE, START_S, ModelServer, start_models

STREAMS = 32
PAUSE_S = 0.05
# As ours has it on a CPU, where vLLM's own defaults end the engine, or take a minute more to start.
ON_CPU = ("--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill")


@dataclass(frozen=True, slots=True)
class Ours:
    """Our server. ready_s: from its start to its first token."""

    server: ModelServer
    counters: str
    ready_s: float

    def direct(self) -> OverGrpc:
        """The way to it past the mesh."""
        return OverGrpc(f"unix:{self.server.socket}", (), self.counters, self.server.mesh.folder / "direct.bin")

    def through_mesh(self) -> OverGrpc:
        """The way to it that its callers have."""
        mesh = self.server.mesh
        metadata = tuple((key, str(value)) for key, value in mesh.bearer(OWNER))
        return OverGrpc(mesh.address, metadata, self.counters, mesh.folder / "mesh.bin")


def start_ours(mesh: RunningMesh, *arguments: str) -> Ours:
    """Start it, and wait until all its models answer."""
    port = free_port()
    began_s = time.monotonic()
    server = start_models(mesh, f"--metrics=127.0.0.1:{port}", f"--concurrency={STREAMS}", *arguments)
    ready_s = _first_token(server) - began_s
    asyncio.run(server.wait_ready())
    mesh.wait_ready(SERVICE)
    return Ours(server, f"http://127.0.0.1:{port}/metrics", ready_s)


def _first_token(server: ModelServer) -> float:
    """When a text first began, on the monotonic clock."""
    deadline_s = time.monotonic() + START_S
    options = (("grpc.default_authority", "localhost"), *RECONNECT_SOON)
    with grpc.insecure_channel(f"unix:{server.socket}", options=options) as channel:
        ask = channel.unary_stream(METHOD, request_serializer=as_sent, response_deserializer=as_sent)
        while True:
            try:
                next(ask(REQUEST, timeout=TIMEOUT_S))
            except grpc.RpcError:
                if time.monotonic() > deadline_s or not server.process.alive:
                    raise
                time.sleep(PAUSE_S)
            else:
                return time.monotonic()


@dataclass(frozen=True, slots=True)
class Theirs:
    """vLLM's own server, and the way to it."""

    process: Process
    way: OverHttp


def start_openai(mesh: RunningMesh, model: Path, *arguments: str) -> Theirs:
    """Start vLLM's own server, and wait until it answers. model: its folder."""
    port = free_port()
    argv = (str(PYTHON), "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", str(model))
    place = ("--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port))
    limits = ("--max-num-seqs", str(STREAMS), "--disable-uvicorn-access-log")
    process = mesh.start("openai", (*argv, *place, *limits, *arguments), env={**ENVIRONMENT, "HF_HUB_OFFLINE": "1"})
    deadline_s = time.monotonic() + START_S
    while not _is_healthy(port):
        if time.monotonic() > deadline_s or not process.alive:
            raise RuntimeError(f"vLLM's own server does not start: {process.said()[-3000:]}")
        time.sleep(PAUSE_S)
    return Theirs(process, OverHttp(port, model.name, mesh.folder / "http.bin"))


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=TIMEOUT_S):
            return True
    except OSError:
        return False
