"""What `llmesh status` shows: the processes, as the supervisor says, and the tools, as the mesh says."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc
import grpc.aio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmesh import MeshError, catalog
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.model.v1 import model_pb2
from llmesh.caller import Caller
from llmesh.cli import show
from llmesh.cli.gateway import Told, ask_gateway, print_gateway, print_places
from llmesh.cli.models import ask_models, print_models
from llmesh.cli.session import SUPERVISOR, supervisor_session
from llmesh.home import Home
from llmesh.supervisor.state import Condition, SupervisorState, read_state
from llmesh.supervisor.supervise import is_up

# Where the gateway says so, for as long as it is so.
POLICY_ERROR = "policy_error.txt"
# Beside 0 and 1. Whoever types a command wrongly gets 2.
NOT_AS_TOLD = 3
COLOURS = {"running": "green", "unresponsive": "red", "backing-off": "red", "stopped": "dim"}


@dataclass(frozen=True, slots=True)
class Status:
    """The mesh here.

    fault: why it doesn't answer; policy_error, tls_error: why its policy files, or its
    certificates, are refused; each empty where there is nothing wrong. models: None
    where they do not answer.
    """

    up: bool
    state: SupervisorState | None
    logs: str = ""
    tools: tuple[pb.Tool, ...] = ()
    endpoints: tuple[pb.Endpoint, ...] = ()
    models: tuple[model_pb2.Model, ...] | None = ()
    fault: str = ""
    policy_error: str = ""
    tls_error: str = ""
    gateway: Told | None = None
    starting: bool = False

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if no mesh answers, NOT_AS_TOLD if something it is told to do or to be is not so."""
        if not self.state or self.fault:
            return 1
        told = self.gateway.read() if self.gateway else None
        refused = self.policy_error or self.tls_error or not told or told.mesh_file.error or told.policy.stale_keys
        running = all(child.state is Condition.RUNNING for child in self.state.children)
        return NOT_AS_TOLD if refused or not running else 0

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "up": self.up,
            "starting": self.starting,
            "supervisor": asdict(self.state) if self.up and self.state else None,
            "fault": self.fault,
            "policy_error": self.policy_error,
            "tls_error": self.tls_error,
            "logs": self.logs,
            "gateway": self.gateway.facts if self.gateway else None,
            "envoy_version": self.gateway.envoy if self.gateway else "",
            "tools": [catalog.as_json(tool) for tool in self.tools],
            "endpoints": [catalog.as_json(endpoint) for endpoint in self.endpoints],
            "models": None if self.models is None else [catalog.as_json(model) for model in self.models],
        }


def look(home: Home) -> Status:
    """The state of the mesh here, now."""
    state = read_state(home) if home.exists else None
    running = home.exists and is_up(home)
    if not state or not running:
        return Status(up=False, state=None, starting=running)
    found = Status(
        up=True,
        state=state,
        logs=str(home.logs),
        policy_error=policy_error(home),
        tls_error=_told(home.tls_error),
        gateway=ask_gateway(home),
    )
    session = supervisor_session(home, state.address)
    try:
        tools, endpoints, models = session.run(_ask)
    except MeshError as err:
        return replace(found, fault=str(err))
    return replace(found, tools=tuple(tools), endpoints=tuple(endpoints), models=models)


def policy_error(home: Home) -> str:
    """Why the gateway refuses the policy files; empty if it doesn't."""
    return _told(home.state / POLICY_ERROR)


def _told(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def print_policy_error(console: Console, error: str, *, answers: bool) -> None:
    """Say, where there is an error, that the files are not what is in force. answers: whether the mesh does."""
    if error:
        instead = ", the last good ones are in force" if answers else ""
        console.print(Text(f"the policy files are refused{instead}: {error}", style="red"))


async def _ask(
    channel: grpc.aio.Channel,
) -> tuple[list[pb.Tool], list[pb.Endpoint], tuple[model_pb2.Model, ...] | None]:
    tools, endpoints = await asyncio.gather(catalog.list_tools(channel), catalog.list_endpoints(channel))
    return tools, endpoints, await ask_models(endpoints, Caller(subject=SUPERVISOR.name))


def print_status(console: Console, status: Status) -> None:
    """For people."""
    if not status.state:
        told = "the mesh here is starting" if status.starting else "no mesh is up here; start one: llmesh up"
        console.print(told)
        return
    console.print(f"the mesh is up on [bold]{status.state.address}[/] (pid {status.state.pid})")
    print_places(console, status.gateway, logs=status.logs)
    console.print(processes_table(status.state))
    print_gateway(console, status.gateway)
    print_models(console, status.models)
    print_policy_error(console, status.policy_error, answers=not status.fault)
    if status.tls_error:
        console.print(
            Text(f"certificates are refused, the last good ones are in force: {status.tls_error}", style="red")
        )
    if status.fault:
        console.print(f"[red]the mesh does not answer:[/] {status.fault}", markup=True)
        return
    console.print()
    console.print(show.tools_table(status.tools) if status.tools else "no tool is on it")
    for endpoint in status.endpoints:
        if endpoint.state != pb.Endpoint.STATE_READY or endpoint.held:
            console.print()
            show.print_endpoint(console, endpoint)


def processes_table(state: SupervisorState) -> Table:
    """One row a process."""
    rows = show.table("process", "state", "pid", "for", "restarts", "last exit")
    for child in state.children:
        condition = f"[{COLOURS[child.state.value]}]{child.state.value}[/]"
        spent = _span(time.time() - child.since)
        rows.add_row(child.name, condition, str(child.pid or ""), spent, str(child.restarts), child.last_exit)
    return rows


def _span(seconds: float) -> str:
    whole = max(int(seconds), 0)
    if whole < 60:  # noqa: PLR2004 seconds in a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 seconds in an hour
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
