"""What a governed call costs: the mesh as shipped, against Envoy that only passes calls on, and a Python proxy.

All serve the same calls with the same backend, each with one worker, in
rounds: every round loads each in turn, so that what else the machine does
falls on all alike. A figure is the median over the rounds.

Of the mesh as shipped it is Envoy's time that counts, which is all that a call
waits for. Of the one with more rules and quotas, the gateway's counts as well,
which makes a decision record of each call afterwards.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from gateway.reading.calls import as_sent
from llmesh.supervisor import plan
from tests.bench.backend import ANSWER, PATH, REQUEST, Backend, backend
from tests.bench.figures import Figure
from tests.bench.governed import ENVOY as ENVOY_PROCESS
from tests.bench.governed import GATEWAY, Governed, governed, strict
from tests.bench.load import ALONE, BUSY, BadAnswersError, Shape, load
from tests.bench.plain_envoy import plain_envoy
from tests.bench.processes import cpu_s, started
from tests.e2e.mesh import REPO, free_port

ROUNDS = 5
ALONE_CALLS = 1500
READY_TIMEOUT_S = 30
MESH, STRICT, ENVOY, PYTHON = "mesh", "governed", "envoy", "python"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One of what is compared. pid: what calls go through. calls: as many as take it a second or two."""

    port: int
    pid: int
    calls: int
    mesh: Governed | None = None


@dataclass(slots=True)
class Round:
    """By the proxy's name: CPU time of a call and of its record, and the median latency of a call alone."""

    cpu_us: dict[str, float] = field(default_factory=dict[str, float])
    record_us: dict[str, float] = field(default_factory=dict[str, float])
    alone_us: dict[str, float] = field(default_factory=dict[str, float])

    def vs_envoy(self, name: str) -> float:
        """CPU time of a call as a multiple of Envoy's alone."""
        return self.cpu_us[name] / self.cpu_us[ENVOY]


def measure() -> list[Figure]:
    """The figures. Raises MissingPackageError, and BadAnswersError unless the backend answered each call with OK."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        backend(Path(name)) as behind,
        _proxies(Path(name), behind) as proxies,
    ):
        rounds = [_round(behind, proxies) for _ in range(ROUNDS)]
        for proxy in proxies.values():
            if proxy.mesh:
                proxy.mesh.check_log()
    return _figures(rounds)


def _figures(rounds: Sequence[Round]) -> list[Figure]:
    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    def with_records(each: Round) -> float:
        return each.vs_envoy(STRICT) + each.record_us[STRICT] / each.cpu_us[ENVOY]

    told = [Figure(f"{name}_cpu_us", median(lambda each, of=name: each.cpu_us[of]), "us") for name in rounds[0].cpu_us]
    told.append(Figure("record_cpu_us", median(lambda each: each.record_us[STRICT]), "us"))
    told.append(Figure("governed_on_path_cpu_vs_envoy", median(lambda each: each.vs_envoy(STRICT)), "ratio"))
    told += [
        Figure(f"{name}_alone_p50_us", median(lambda each, of=name: each.alone_us[of]), "us")
        for name in rounds[0].alone_us
    ]
    return [
        Figure("mesh_cpu_vs_envoy", median(lambda each: each.vs_envoy(MESH)), "ratio", 2.0),
        Figure("governed_cpu_vs_envoy", median(with_records), "ratio", 2.3),
        Figure(
            "python_proxy_cpu_vs_mesh", median(lambda each: each.cpu_us[PYTHON] / each.cpu_us[MESH]), "ratio", 4.0, ">="
        ),
        Figure("mesh_added_p50_us", median(lambda each: each.alone_us[MESH] - each.alone_us[ENVOY]), "us", 60.0),
        *told,
    ]


@contextmanager
def _proxies(folder: Path, behind: Backend) -> Generator[Mapping[str, Proxy]]:
    """All that is compared, by name."""
    envoy_port, python_port = free_port(), free_port()
    config = folder / "plain.json"
    config.write_text(plain_envoy(envoy_port, behind.address.removeprefix("unix:")))
    python = (sys.executable, "-m", "tests.bench.python_proxy", str(python_port), behind.address)
    with ExitStack() as ending:
        meshes = {MESH: ending.enter_context(governed(behind)), STRICT: ending.enter_context(strict(behind))}
        binary = plan.envoy(meshes[MESH].mesh.home).argv[0]
        plain = (binary, "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warn")
        envoy_pid = ending.enter_context(started(plain, log=folder / "plain.log"))
        python_pid = ending.enter_context(started(python, log=folder / "python.log", cwd=REPO))
        yield {
            **{name: Proxy(mesh.mesh.port, mesh.pid(ENVOY_PROCESS), 15_000, mesh) for name, mesh in meshes.items()},
            ENVOY: Proxy(envoy_port, envoy_pid, 30_000),
            PYTHON: Proxy(python_port, python_pid, 4_000),
        }


def _round(behind: Backend, proxies: Mapping[str, Proxy]) -> Round:
    made = Round()
    headers = {name: proxy.mesh.headers for name, proxy in proxies.items() if proxy.mesh}
    for name, proxy in proxies.items():
        sent = headers.get(name, headers[MESH])
        _call(proxy, sent)
        recorded_s = cpu_s(proxy.mesh.pid(GATEWAY)) if proxy.mesh else 0.0
        before_s = cpu_s(proxy.pid)
        _load(behind, proxy, proxy.calls, shape=BUSY, headers=sent)
        made.cpu_us[name] = (cpu_s(proxy.pid) - before_s) / proxy.calls * 1e6
        if proxy.mesh:
            proxy.mesh.settle()
            made.record_us[name] = (cpu_s(proxy.mesh.pid(GATEWAY)) - recorded_s) / proxy.calls * 1e6
    for name, proxy in proxies.items():
        made.alone_us[name] = _load(behind, proxy, ALONE_CALLS, shape=ALONE, headers=headers.get(name, headers[MESH]))
        if proxy.mesh:
            proxy.mesh.settle()
    return made


def _load(behind: Backend, proxy: Proxy, calls: int, *, shape: Shape, headers: Mapping[str, str]) -> float:
    """Median latency in microseconds of calls that the backend has answered, every one."""
    before = behind.answered()
    latency_us = load(proxy.port, calls, shape=shape, headers=headers)
    answered = behind.answered() - before
    if answered != calls:
        raise BadAnswersError(f"of {calls} calls, the backend answered {answered}")
    if proxy.mesh:
        proxy.mesh.calls += calls
    return latency_us


def _call(proxy: Proxy, headers: Mapping[str, str]) -> None:
    """One call as a gRPC client makes it, which sees what it is answered."""
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        call = channel.unary_unary(PATH, request_serializer=as_sent, response_deserializer=as_sent)
        answer = call(REQUEST[5:], metadata=(*headers.items(),), timeout=READY_TIMEOUT_S, wait_for_ready=True)
    if answer != ANSWER[5:]:
        raise BadAnswersError("a gRPC client got another answer than the backend gives")
    if proxy.mesh:
        proxy.mesh.calls += 1
