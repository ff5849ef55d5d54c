"""How soon a mesh can be called: `llmesh up --detach` with the reference tools, to the first good call.

As on a machine where it is installed and has run: the first start, which
builds the indexes of what the tools search, does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from gateway.reading.calls import as_sent
from llmesh.home import Home
from llmesh.identity import DEV, DevIssuer
from tests.bench.figures import Figure
from tests.e2e.mesh import REPO, free_port

ROUNDS = 3
TOOLS: Mapping[str, str] = {
    "doc_search": "engineering/doc_search",
    "package_search": "engineering/package_search",
    "handbook": "handbook/search",
    "answer": "support/answer",
    "tickets": "support/tickets",
    "text": "writing/text",
}
METHOD = "/acme.support.v1.Tickets/ListTickets"
TIMEOUT_S = 60
PAUSE_S = 0.01
RECONNECT_SOON = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50))


def measure() -> list[Figure]:
    """The figures."""
    with _mesh() as mesh:
        mesh.up()
        rounds = [_round(mesh) for _ in range(ROUNDS)]
    return [
        Figure("up_to_first_call_s", statistics.median(first for first, _ in rounds), "s", 5.0),
        Figure("up_returns_s", statistics.median(returned for _, returned in rounds), "s"),
    ]


@dataclass(frozen=True, slots=True)
class _Mesh:
    file: Path
    home: Home
    address: str

    def up(self) -> None:
        """Start it in the background, and return when it is up."""
        self.run("up", "--detach", "--timeout", str(TIMEOUT_S), "--mesh-file", str(self.file))

    def run(self, *arguments: str) -> None:
        """Run the installed command. Raises CalledProcessError."""
        program = (sys.executable, "-P", "-c", "from llmesh.cli import main; main()")
        env = {**os.environ, "LLMESH_HOME": str(self.home.path)}
        subprocess.run(
            (*program, *arguments),
            env=env,
            stdout=subprocess.DEVNULL,
            cwd=self.file.parent,
            timeout=2 * TIMEOUT_S,
            check=True,
        )


@contextmanager
def _mesh() -> Generator[_Mesh]:
    """A mesh that is not up yet, and is down afterwards."""
    with tempfile.TemporaryDirectory(prefix="up-") as name:
        folder, address = Path(name), f"127.0.0.1:{free_port()}"
        processes = "".join(f"  - {{name: {tool}, folder: {REPO}/tools/{path}}}\n" for tool, path in TOOLS.items())
        file = folder / "mesh.yaml"
        file.write_text(
            f"listen: {address}\noperations: 127.0.0.1:{free_port()}\n"
            f"policies: {REPO}/governance/policies\nprocesses:\n{processes}"
        )
        mesh = _Mesh(file, Home.find(folder / "m"), address)
        try:
            yield mesh
        finally:
            mesh.run("down")


def _round(mesh: _Mesh) -> tuple[float, float]:
    """Seconds from the start to the first good call, and until the command had returned."""
    mesh.run("down")
    started_s = time.monotonic()
    starting = threading.Thread(target=mesh.up)
    starting.start()
    try:
        first_s = _first_good_call(mesh) - started_s
    finally:
        starting.join()
    return first_s, time.monotonic() - started_s


def _first_good_call(mesh: _Mesh) -> float:
    """When a call was first answered, on the monotonic clock."""
    bearer = (("authorization", f"Bearer {DevIssuer.open(mesh.home).mint(DEV)}"),)
    deadline_s = time.monotonic() + TIMEOUT_S
    with grpc.insecure_channel(mesh.address, options=RECONNECT_SOON) as channel:
        call = channel.unary_unary(METHOD, request_serializer=as_sent, response_deserializer=as_sent)
        while True:
            try:
                call(b"", metadata=bearer, timeout=1)
            except grpc.RpcError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(PAUSE_S)
            else:
                return time.monotonic()
