"""A whole real mesh for tests: gateway, Envoy and tools as processes, in a directory and on a port of its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import yaml

from llmesh.api.catalog.v1 import catalog_pb2 as catalog
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.home import Home
from llmesh.identity import DevCaller, DevIssuer
from llmesh.supervisor import plan
from llmesh.supervisor.supervise import shared_memory
from tests.e2e.process import Process
from tests.eventually import eventually

REPO = Path(__file__).resolve().parent.parent.parent
ECHO = "acme.testing.v1.Echo"
READER = DevCaller("ada", domain="engineering")
OWNER = DevCaller("olga", roles=("editor", "owner"), domain="testing")
PLATFORM = DevCaller("pia", roles=("platform",), domain="platform")
# Packages of the tests' own tools.
OWNERSHIP = "  acme.testing: testing\n  acme.node: testing\n  foreign: testing\n"
# Whom the tests' own domain lets in nowhere.
OUTSIDER = DevCaller("otto", roles=("editor", "owner"), domain="outside")
TESTING_RULES = """
version: 1
domain: testing
default: inherit
rules:
  - id: no-outsiders
    effect: forbid
    when: caller.domain == 'outside'
    reason: outsiders may call no test tool
"""
READY_TIMEOUT_S = 60.0
POLL_S = 0.05

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(slots=True)
class RunningMesh:
    """A mesh whose every process a test may start, stop and kill alone."""

    folder: Path
    home: Home
    port: int
    # More of the mesh file.
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    processes: list[Process] = field(default_factory=list[Process])

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.port}"

    @property
    def file(self) -> Path:
        """Its mesh file."""
        return self.folder / "mesh.yaml"

    def write_file(self, *, endpoints: Sequence[Mapping[str, object]] = ()) -> None:
        """Write the mesh file anew; a running gateway takes it up."""
        content = {"listen": self.address, "operations": "", "policies": "policies", **self.settings}
        content["endpoints"] = [dict(each) for each in endpoints]
        draft = self.folder / "mesh.yaml.new"
        draft.write_text(yaml.safe_dump(content))
        draft.replace(self.file)

    def bearer(self, caller: DevCaller = READER) -> Metadata:
        """The metadata of a signed-in caller."""
        return (("authorization", f"Bearer {self.token(caller)}"),)

    def token(self, caller: DevCaller = READER) -> str:
        """A token of the development issuer."""
        return DevIssuer.open(self.home).mint(caller)

    def start(
        self, name: str, argv: Sequence[str], *, folder: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a process of this mesh; it is ended with the mesh."""
        known = {"LLMESH_HOME": str(self.home.path), "LLMESH_NAME": name, "PYTHONUNBUFFERED": "1"}
        log = self.home.logs / f"{name}.log"
        process = Process(name, argv, folder or self.folder, log, {**known, **(env or {})})
        self.processes.append(process)
        return process

    def start_gateway(self) -> Process:
        """Start the gateway; one was not running."""
        return self.start("gateway", plan.gateway(self.home, self.file).argv)

    def start_envoy(self) -> Process:
        """Start Envoy with the bootstrap of the mesh file."""
        plan.write_bootstrap(self.home, self.file)
        return self.start("envoy", plan.envoy(self.home).argv)

    def start_echo(self, name: str = "echo") -> Process:
        """Start one more echo tool."""
        return self.start(name, (sys.executable, "-m", "echo_tool"), folder=REPO / "tests/tools/echo")

    def start_tool(self, path: str, *arguments: str) -> Process:
        """Start a reference tool by its folder below tools/."""
        folder = REPO / "tools" / path
        return self.start(folder.name, (sys.executable, "-m", folder.name, *arguments), folder=folder)

    def wait_ready(self, *services: str, count: int = 1, within_s: float = READY_TIMEOUT_S) -> None:
        """Return when each service can be called at that many endpoints."""
        with grpc.insecure_channel(self.address) as channel:
            stub, asked = CatalogServiceStub(channel), catalog.ListToolsRequest(page_size=1000)

            async def are_ready() -> None:
                listed = stub.ListTools(asked, metadata=self.bearer(PLATFORM), timeout=10, wait_for_ready=True)
                assert set(services) <= {tool.service for tool in listed.tools if tool.ready_count >= count}

            try:
                asyncio.run(eventually(are_ready, within_s=within_s, pause_s=POLL_S))
            except (AssertionError, grpc.RpcError) as err:
                raise AssertionError(f"not ready: {services}\n{self.said()}") from err

    def said(self) -> str:
        """The last words of every process."""
        logs = sorted(self.home.logs.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def stop(self) -> None:
        """End every process: tools first, then Envoy, then the gateway."""
        order = {"envoy": 1, "gateway": 2}
        for process in sorted(self.processes, key=lambda each: order.get(each.name, 0)):
            if process.alive:
                process.stop()
        # Envoy's, which it leaves for one that may succeed it.
        shared_memory(self.home).unlink(missing_ok=True)


@contextmanager
def running_mesh(
    *, endpoints: Sequence[Mapping[str, object]] = (), start: bool = True, **settings: object
) -> Generator[RunningMesh]:
    """A mesh with gateway and Envoy (unless start is False), and no tool, for as long as the block lasts.

    settings: more of its mesh file.
    """
    # Not pytest's own folder: its path can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        mesh = RunningMesh(folder, Home.find(folder / "m").create(), free_port(), settings)
        shutil.copytree(REPO / "governance/policies", folder / "policies")
        with (folder / "policies/ownership.yaml").open("a") as ownership:
            ownership.write(OWNERSHIP)
        (folder / "policies/domains/testing.yaml").write_text(TESTING_RULES)
        mesh.write_file(endpoints=endpoints)
        DevIssuer.open(mesh.home)
        try:
            if start:
                mesh.start_gateway()
                mesh.start_envoy()
            yield mesh
        finally:
            mesh.stop()


def free_port() -> int:
    """A port of the loopback address that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
