"""`llmesh restart`: new processes in the place of those that run, without a failed call."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from llmesh.cli.options import HomeOption, JsonOption
from llmesh.cli.output import print_json_line, print_problem, say


def restart(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Processes. Default: all.")] = None,
    *,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Restart processes of the mesh one after another, without a failed call.

    Each new process runs beside the old one until it is ready. A new one that isn't
    in time is ended, the old one goes on, and so do those that had not been restarted yet.
    """
    from llmesh.home import Home
    from llmesh.problem import Problem
    from llmesh.supervisor.control import ask_restart

    failed = False
    for each in ask_restart(Home.find(home), names or []):
        failed = failed or bool(each.problem)
        if json:
            print_json_line(asdict(each))
        elif each.problem:
            print_problem(Problem(each.problem, each.step))
        else:
            say(f"{each.name} is restarted")
    if failed:
        raise typer.Exit(1)
