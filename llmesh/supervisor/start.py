"""From a mesh file to a running mesh: checked, cleared, planned, run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from llmesh.home import Home
from llmesh.identity import DEV, DevIssuer, Logins
from llmesh.mesh_file import split_host_port
from llmesh.problem import Problem
from llmesh.supervisor import checks, plan
from llmesh.supervisor.logs import Sink, last_lines
from llmesh.supervisor.processes import ProcessId, end
from llmesh.supervisor.state import read_state
from llmesh.supervisor.supervise import Supervisor, clear_leftovers, held, is_up

# The longest an orderly end takes: each rank's grace, and a little.
DOWN_TIMEOUT_S = 40.0
LAST_WORDS = 5
DAEMON_LOG = "supervisor.log"


def start(
    home_path: Path | None, mesh_file: Path, *, sink: Sink, beside: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Run the mesh in this process until it is told to stop. Raises Problem if it cannot be started."""
    home = checks.open_home(home_path)
    with held(home):
        clear_leftovers(home)
        intended = prepare(home, mesh_file)
        supervisor = Supervisor(
            home,
            intended.programs,
            address=intended.address,
            mesh_file=mesh_file,
            sink=sink,
            logs=intended.mesh.logs,
            replan=lambda: plan.read(home, mesh_file).programs,
        )
        _run(supervisor, home, mesh_file, beside)


def _run(supervisor: Supervisor, home: Home, mesh_file: Path, beside: Callable[[], Awaitable[None]] | None) -> None:
    """Run the supervisor, and make Envoy's bootstrap meanwhile: the gateway takes as long to start."""
    unusable: list[Problem] = []

    async def begin() -> None:
        try:
            await asyncio.to_thread(plan.write_bootstrap, home, mesh_file)
        except Problem as problem:
            unusable.append(problem)
            supervisor.stop()
            return
        if beside:
            await beside()

    plan.forget_bootstrap(home)
    asyncio.run(supervisor.run(begin))
    if unusable:
        raise unusable[0]


def prepare(home: Home, mesh_file: Path) -> plan.Plan:
    """What would be run, and somebody signed in. Raises Problem if it cannot be started."""
    checks.check_installed()
    intended = plan.read(home, mesh_file)
    checks.check_port(intended.host, intended.port)
    if intended.mesh.operations:
        checks.check_port(*split_host_port(intended.mesh.operations))
    DevIssuer.open(home)
    logins = Logins.load(home)
    if not logins.current:
        logins.signed_in(DEV).save(home)
    return intended


def start_in_background(home: Home, mesh_file: Path) -> ProcessId:
    """Start a supervisor that outlives this process and its terminal."""
    log = str(home.logs / DAEMON_LOG)
    pid = os.posix_spawn(
        sys.executable,
        [
            *(sys.executable, "-P", "-m", "llmesh.supervisor"),
            *("--home", str(home.path), "--mesh-file", str(mesh_file)),
        ],
        os.environ,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return ProcessId.of(pid) or ProcessId(pid, 0)


def check_still_starting(home: Home, process: ProcessId) -> None:
    """Raises Problem with its last words if a supervisor in the background has ended."""
    if process.alive():
        return
    said = last_lines(home.logs / DAEMON_LOG, LAST_WORDS)
    words = said[0].removeprefix("error: ") if said else "it says nothing"
    raise Problem(f"the mesh did not start: {words}", "\n".join(said[1:]).strip())


@dataclass(frozen=True, slots=True)
class Ended:
    """What `stop` ended: whether a supervisor ran, and what had been left by a killed one."""

    was_up: bool
    leftovers: tuple[str, ...]


def stop(home: Home) -> Ended:
    """End the mesh of this directory, and what a killed supervisor left of it. Raises Problem if one just begins."""
    if not home.exists:
        return Ended(was_up=False, leftovers=())
    state = read_state(home)
    was_up = is_up(home)
    if was_up and state:
        end([state.process], grace_s=DOWN_TIMEOUT_S)
    elif was_up:
        raise _begins()
    with ExitStack() as stack:
        try:
            stack.enter_context(held(home))
        except Problem as err:
            # What runs here now is no leftover.
            raise _begins() from err
        return Ended(was_up, tuple(clear_leftovers(home)))


def _begins() -> Problem:
    return Problem("the mesh is just being started", "try again in a moment")
