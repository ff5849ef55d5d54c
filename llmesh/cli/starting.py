"""`llmesh up` as it is seen: quiet until the tools can be called, then the welcome, then the logs."""

from __future__ import annotations

import asyncio
import json as json_text
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console
from rich.text import Text

from llmesh._client import is_local
from llmesh.cli import running, welcome
from llmesh.cli.edge import problem_of
from llmesh.cli.output import Trimmed, console, print_json, print_problem
from llmesh.cli.screen import Screen
from llmesh.cli.session import open_session, supervisor_session
from llmesh.errors import MeshError
from llmesh.home import Home
from llmesh.log import printable
from llmesh.mesh_file import ModelSettings
from llmesh.problem import Problem
from llmesh.supervisor import checks, plan
from llmesh.supervisor.logs import last_lines
from llmesh.supervisor.processes import ProcessId, end
from llmesh.supervisor.ready import wait_listening, wait_ready
from llmesh.supervisor.start import DOWN_TIMEOUT_S, check_still_starting, prepare, start, start_in_background
from llmesh.supervisor.supervise import held

LOG_LINES = 5
POLL_S = 0.1
LAST_WORDS_S = 1.0
SUPERVISOR_SAYS = "[llmesh] "
LEVELS = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


def in_foreground(home_path: Path | None, mesh_file: Path, *, timeout_s: float, json: bool) -> None:
    """Run the mesh here until it is told to stop."""
    home = checks.open_home(home_path)
    intended = plan.read(home, mesh_file)
    screen = Screen(sys.stdout, gone=end_in_order)
    out = console()
    out.file = cast("TextIO", screen if screen.isatty() else Trimmed(cast("TextIO", screen)))
    terminal = Terminal(out, [program.name for program in intended.programs], quiet=json)

    async def greet() -> None:
        try:
            with out.status(f"starting {len(intended.programs)} processes"):
                missing = await _wait(home, intended, timeout_s=timeout_s)
            await _welcome(home, intended, out, missing=missing, json=json, ends="Ctrl-C or `llmesh down`")
        except (MeshError, Problem) as err:
            # The mesh goes on: what is wrong with it shows in its logs.
            print_problem(problem_of(err))
        except OSError:
            # Nobody looks any more: `llmesh up --json | head`.
            end_in_order()
        with terminal.opened():
            await asyncio.Event().wait()

    try:
        start(home_path, mesh_file, sink=terminal.show, beside=greet)
    finally:
        screen.finish(LAST_WORDS_S)


def in_background(home_path: Path | None, mesh_file: Path, *, timeout_s: float, json: bool) -> None:
    """Start the mesh, wait until its tools can be called, and leave it running."""
    home = checks.open_home(home_path)
    # What would fail at once is said here; the lock is the background process's to take.
    with held(home):
        intended = prepare(home, mesh_file)
    process = start_in_background(home, mesh_file)
    try:
        asyncio.run(_follow(home, intended, process, timeout_s=timeout_s, json=json))
    except KeyboardInterrupt:
        end([process], grace_s=DOWN_TIMEOUT_S)
        raise


def end_in_order() -> None:
    """End the mesh like Ctrl-C."""
    os.kill(os.getpid(), signal.SIGTERM)


async def _follow(home: Home, intended: plan.Plan, process: ProcessId, *, timeout_s: float, json: bool) -> None:
    async def alive() -> None:
        while True:
            check_still_starting(home, process)
            await asyncio.sleep(POLL_S)

    watching = asyncio.create_task(alive(), name="supervisor")
    waiting = asyncio.create_task(_wait(home, intended, timeout_s=timeout_s), name="ready")
    await asyncio.wait((watching, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    watching.cancel()
    if watching.done() and not watching.cancelled():
        watching.result()
    await _welcome(home, intended, console(), missing=waiting.result(), json=json, ends="`llmesh down`")
    if waiting.result():
        raise Problem("the mesh is up, but not all of it", "see why: llmesh status; end it: llmesh down")
    if running.policy_error(home):
        raise Problem("the mesh is up, but not with these policy files", "mend them: they are taken up as they change")


async def _wait(home: Home, intended: plan.Plan, *, timeout_s: float) -> dict[str, str]:
    deadline = time.monotonic() + timeout_s
    await wait_listening(intended.host, intended.port, timeout_s=timeout_s)
    async with supervisor_session(home, intended.address).channel() as channel:
        return await wait_ready(channel, processes=intended.tools, timeout_s=deadline - time.monotonic())


async def _welcome(
    home: Home, intended: plan.Plan, out: Console, *, missing: dict[str, str], json: bool, ends: str
) -> None:
    """Say where the mesh is and what it does; of what isn't ready, why."""
    if json:
        facts = {"address": intended.address, "home": str(home.path), "ready": not missing, "missing": missing}
        print_json({**facts, "policy_error": running.policy_error(home)})
        return
    for name, fault in missing.items():
        out.print(Text(f"{name} {fault}", style="red"))
        for line in last_lines(home.logs / f"{'gateway' if name == 'mesh' else name}.log", LOG_LINES):
            out.print(Text(f"  {line}", style="dim"))
    if "mesh" not in missing and not is_local(intended.address):
        # Nobody who could sign in here is believed there.
        out.print(f"the mesh is up on [bold]{intended.address}[/]")
    elif "mesh" not in missing:
        await welcome.welcome(out, open_session(home.path, intended.address), ends=ends)
    if intended.mesh.model_server:
        out.print(Text(_of_models(intended.mesh.model_server), style="dim"))
    running.print_policy_error(out, running.policy_error(home), answers="mesh" not in missing)


def _of_models(models: ModelSettings) -> str:
    """Whether there will be a model server."""
    if not plan.has_environment(models):
        if models.environment.exists():
            return "there is no model server yet: once `make model` is done, start the mesh anew"
        return "there is no model server: `make model` makes its environment, once"
    starts = "the model server starts in the background: llmesh call llmesh.api.model.v1.ModelService/ListModels '{}'"
    return (
        starts if models.model else f"{starts}\nno model is named: it writes with random weights, which means nothing"
    )


def log_text(line: str) -> Text:
    """A line of a log for people; one that isn't ours stays as it is."""
    try:
        entry = json_text.loads(line)
        at, level, event = (entry.pop(name) for name in ("time", "level", "event"))
    except (ValueError, KeyError, AttributeError, TypeError):
        return Text(line)
    entry.pop("logger", None)
    text = Text.assemble((f"{printable(str(at))[11:23]} ", "dim"), (printable(str(event)), LEVELS.get(str(level), "")))
    for name, value in entry.items():
        if value not in ("", [], None):
            shown = value if isinstance(value, str) else json_text.dumps(value)
            # JSON may hold what the line itself could not.
            text.append(f" {printable(name)}=", style="dim").append(printable(shown))
    return text


class Terminal:
    """Shows what programs print, each line after its program's name, while it is opened.

    When the mesh ends, only what the supervisor says of them: how they end is in their logs.
    """

    def __init__(self, out: Console, names: list[str], *, quiet: bool) -> None:
        """quiet: say nothing, ever."""
        self._out = out
        self._quiet = quiet
        self._open = self._ending = False
        self._width = max(map(len, names), default=0)
        self._colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}

    @contextmanager
    def opened(self) -> Generator[None]:
        """Show lines for as long as the block lasts; then the mesh ends."""
        self._open = True
        try:
            yield
        finally:
            self._ending = True
            if not self._quiet:
                self._out.print("ending: calls are finished first; Ctrl-C again ends it at once")

    def show(self, name: str, line: str) -> None:
        """One line of one program."""
        shown = line.startswith(SUPERVISOR_SAYS) if self._ending else self._open
        if shown and not self._quiet:
            prefix = Text(f"{name:<{self._width}} | ", style=self._colours[name])
            self._out.print(prefix.append_text(log_text(line)))
