"""What a governed call costs: the mesh as shipped, against Envoy that only passes calls on, and a Python proxy.

All three serve the same calls with the same backend, each with one worker, in
rounds: every round loads each in turn, so that what else the machine does
falls on all alike. A figure is the median over the rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from gateway.discovery.calls import as_sent
from llmesh.identity import DevCaller
from llmesh.supervisor import plan
from tests.bench.backend import ANSWER, PATH, REQUEST, SERVICE, Backend, backend
from tests.bench.figures import Figure
from tests.bench.load import ALONE, BUSY, BadAnswersError, Shape, load
from tests.bench.plain_envoy import plain_envoy
from tests.bench.processes import cpu_s, started
from tests.e2e.mesh import REPO, RunningMesh, free_port, running_mesh

ROUNDS = 5
ALONE_CALLS = 1500
READY_TIMEOUT_S = 30
LOGGED_WITHIN_S = 10
# The shipped policies let them read personal data, for they are of its domain.
CALLER = DevCaller("sam", roles=("editor",), domain="support")
MESH, ENVOY, PYTHON = "mesh", "envoy", "python"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One of what is compared. pids: what it is made of. calls: as many as take it a second or two."""

    port: int
    pids: tuple[int, ...]
    calls: int


@dataclass(slots=True)
class Round:
    """By the proxy's name: CPU time of a call, and the median latency of a call alone."""

    cpu_us: dict[str, float] = field(default_factory=dict[str, float])
    alone_us: dict[str, float] = field(default_factory=dict[str, float])


def measure() -> list[Figure]:
    """The figures. Raises MissingPackageError, and BadAnswersError unless the backend answered each call with OK."""
    with _governed() as mesh, _proxies(mesh) as proxies:
        rounds = [_round(mesh, proxies) for _ in range(ROUNDS)]
        mesh.check_log()
    return _figures(rounds)


def _figures(rounds: Sequence[Round]) -> list[Figure]:
    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    told = [Figure(f"{name}_cpu_us", median(lambda each, of=name: each.cpu_us[of]), "us") for name in rounds[0].cpu_us]
    told += [
        Figure(f"{name}_alone_p50_us", median(lambda each, of=name: each.alone_us[of]), "us")
        for name in rounds[0].alone_us
    ]
    return [
        Figure("mesh_cpu_vs_envoy", median(lambda each: each.cpu_us[MESH] / each.cpu_us[ENVOY]), "ratio", 2.0),
        Figure(
            "python_proxy_cpu_vs_mesh", median(lambda each: each.cpu_us[PYTHON] / each.cpu_us[MESH]), "ratio", 4.0, ">="
        ),
        Figure("mesh_added_p50_us", median(lambda each: each.alone_us[MESH] - each.alone_us[ENVOY]), "us", 60.0),
        *told,
    ]


@dataclass(slots=True)
class Governed:
    """The mesh as shipped, with a tool that the backend answers for. calls: how many went through it."""

    mesh: RunningMesh
    backend: Backend
    calls: int = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """What a signed-in caller sends."""
        return {"authorization": f"Bearer {self.mesh.token(CALLER)}"}

    def count(self, proxy: Proxy, calls: int) -> None:
        """Note calls that went through a proxy."""
        self.calls += calls if proxy.port == self.mesh.port else 0

    def check_log(self) -> None:
        """Raise BadAnswersError unless the call log has each call, with OK."""
        path = self.mesh.home.logs / "calls.jsonl"
        deadline = time.monotonic() + LOGGED_WITHIN_S
        while (good := _good_calls(path)) < self.calls and time.monotonic() < deadline:
            time.sleep(0.1)
        if good != self.calls:
            raise BadAnswersError(f"of {self.calls} calls through the mesh, {good} ended with OK")


def _good_calls(log: Path) -> int:
    lines = map(json.loads, log.read_text().splitlines())
    return sum(line["path"] == PATH and line["code"] == "OK" for line in lines)


@contextmanager
def _governed() -> Generator[Governed]:
    """The shipped policies and bootstrap, a gateway, and an Envoy of one worker."""
    with running_mesh(start=False) as mesh, backend(mesh.folder) as behind:
        mesh.write_file(endpoints=[{"address": behind.address}])
        mesh.start_gateway()
        plan.write_bootstrap(mesh.home, mesh.file)
        argv = list(plan.envoy(mesh.home).argv)
        argv[argv.index("--concurrency") + 1] = "1"
        mesh.start("envoy", argv)
        mesh.wait_ready(SERVICE)
        yield Governed(mesh, behind)


@contextmanager
def _proxies(governed: Governed) -> Generator[Mapping[str, Proxy]]:
    """All that is compared, by name; each has answered."""
    mesh, folder, to = governed.mesh, governed.mesh.folder, governed.backend.address
    envoy_port, python_port = free_port(), free_port()
    config = folder / "plain.json"
    config.write_text(plain_envoy(envoy_port, to.removeprefix("unix:")))
    binary = plan.envoy(mesh.home).argv[0]
    plain = (binary, "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warn")
    python = (sys.executable, "-m", "tests.bench.python_proxy", str(python_port), to)
    with ExitStack() as ending:
        envoy_pid = ending.enter_context(started(plain, log=folder / "plain.log"))
        python_pid = ending.enter_context(started(python, log=folder / "python.log", cwd=REPO))
        mesh_pids = tuple(each.pid for each in mesh.processes)
        yield {
            MESH: Proxy(mesh.port, mesh_pids, 15_000),
            ENVOY: Proxy(envoy_port, (envoy_pid,), 30_000),
            PYTHON: Proxy(python_port, (python_pid,), 4_000),
        }


def _round(governed: Governed, proxies: Mapping[str, Proxy]) -> Round:
    made = Round()
    for name, proxy in proxies.items():
        _call(governed, proxy)
        before = sum(map(cpu_s, proxy.pids))
        _load(governed, proxy, proxy.calls, shape=BUSY)
        made.cpu_us[name] = (sum(map(cpu_s, proxy.pids)) - before) / proxy.calls * 1e6
    for name, proxy in proxies.items():
        made.alone_us[name] = _load(governed, proxy, ALONE_CALLS, shape=ALONE)
    return made


def _load(governed: Governed, proxy: Proxy, calls: int, *, shape: Shape) -> float:
    """Median latency in microseconds of calls that the backend has answered, every one."""
    before = governed.backend.answered()
    latency_us = load(proxy.port, calls, shape=shape, headers=governed.headers)
    answered = governed.backend.answered() - before
    if answered != calls:
        raise BadAnswersError(f"of {calls} calls, the backend answered {answered}")
    governed.count(proxy, calls)
    return latency_us


def _call(governed: Governed, proxy: Proxy) -> None:
    """One call as a gRPC client makes it, which sees what it is answered."""
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        call = channel.unary_unary(PATH, request_serializer=as_sent, response_deserializer=as_sent)
        answer = call(REQUEST[5:], metadata=(*governed.headers.items(),), timeout=READY_TIMEOUT_S, wait_for_ready=True)
    if answer != ANSWER[5:]:
        raise BadAnswersError("a gRPC client got another answer than the backend gives")
    governed.count(proxy, 1)
