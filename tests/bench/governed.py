"""A whole mesh under load: the shipped policies and bootstrap, a gateway, and an Envoy of one worker."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from llmesh.identity import DevCaller
from llmesh.supervisor import plan
from tests.bench.backend import PATH, SERVICE, Backend
from tests.bench.load import BadAnswersError
from tests.bench.processes import cpu_s
from tests.e2e.mesh import RunningMesh, running_mesh

__all__ = ["ENVOY", "GATEWAY", "Governed", "governed", "started", "strict"]

# The shipped policies let them read personal data, for they are of its domain.
CALLER = DevCaller("sam", roles=("editor",), domain="support")
LOGGED_WITHIN_S = 30
SETTLED_S = 1.0
ENVOY, GATEWAY = "envoy", "gateway"
# What rules ask of callers, most of all for roles; the last one is no comparison that Envoy makes by itself.
CONDITIONS = (
    *(f"'suspended-{number}' in caller.roles" for number in range(4)),
    *(f"caller.domain == 'outside-{number}'" for number in range(3)),
    *(f"caller.subject.startsWith('robot-{number}')" for number in range(2)),
    "size(caller.roles) > 40",
)
# More than one caller ever gets through.
ENOUGH_PER_S = 10_000_000


@dataclass(slots=True)
class Governed:
    """A mesh with a tool that the backend answers for. calls: how many went through it."""

    mesh: RunningMesh
    calls: int = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """What a signed-in caller sends."""
        return {"authorization": f"Bearer {self.mesh.token(CALLER)}"}

    def pid(self, name: str) -> int:
        """The process of a name."""
        return next(each.pid for each in self.mesh.processes if each.name == name)

    def settle(self) -> None:
        """Return when the gateway has done with what was logged: it takes a while to record what Envoy has served."""
        before, deadline = cpu_s(self.pid(GATEWAY)), time.monotonic() + LOGGED_WITHIN_S
        while time.monotonic() < deadline:
            time.sleep(SETTLED_S)
            after = cpu_s(self.pid(GATEWAY))
            # Health checks and the like are a few hundredths.
            if after - before < SETTLED_S / 20:
                return
            before = after

    def check_log(self) -> None:
        """Raise BadAnswersError unless the call log has each call, with OK."""
        deadline = time.monotonic() + LOGGED_WITHIN_S
        while (good := self._good_calls()) < self.calls and time.monotonic() < deadline:
            time.sleep(0.1)
        if good != self.calls:
            raise BadAnswersError(f"of {self.calls} calls through the mesh, {good} ended with OK")

    def _good_calls(self) -> int:
        lines = (line for log in self.mesh.home.logs.glob("calls.jsonl*") for line in log.read_text().splitlines())
        return sum(line["path"] == PATH and line["code"] == "OK" for line in map(json.loads, lines))


@contextmanager
def governed(backend: Backend) -> Generator[Governed]:
    """The mesh."""
    with running_mesh(start=False) as mesh:
        mesh.write_file(endpoints=[{"address": backend.address}])
        yield started(mesh)


@contextmanager
def strict(backend: Backend) -> Generator[Governed]:
    """The same with ten more conditions of the caller on the tool, and with quotas."""
    limits = {"calls_per_s": ENOUGH_PER_S, "quotas": dict.fromkeys(("low", "medium", "high"), ENOUGH_PER_S)}
    with running_mesh(start=False, limits=limits) as mesh:
        _add_conditions(mesh.folder / "policies/domains/support.yaml")
        mesh.write_file(endpoints=[{"address": backend.address}])
        yield started(mesh)


def started(mesh: RunningMesh) -> Governed:
    """The mesh, whose file is written, once its tool can be called."""
    mesh.start_gateway()
    plan.write_bootstrap(mesh.home, mesh.file)
    argv = list(plan.envoy(mesh.home).argv)
    argv[argv.index("--concurrency") + 1] = "1"
    mesh.start(ENVOY, argv)
    mesh.wait_ready(SERVICE)
    return Governed(mesh)


def _add_conditions(file: Path) -> None:
    policy = yaml.safe_load(file.read_text())
    policy["rules"] += [
        {"id": f"condition-{number}", "effect": "forbid", "when": when, "reason": "it does not hold for the caller"}
        for number, when in enumerate(CONDITIONS)
    ]
    file.write_text(yaml.safe_dump(policy))
