"""`llmesh up`, `down`, `status`: the mesh on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmesh.cli.options import HomeOption, JsonOption, MeshFileOption
from llmesh.cli.output import console, print_json, say


def up(
    *,
    mesh_file: MeshFileOption = Path("mesh.yaml"),
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once every tool can be called.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for the tools.")] = 30.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start the mesh: Envoy, the gateway and the tools of the mesh file.

    Each restarts by itself when it fails. Ctrl-C, or `llmesh down`, ends them all.
    """
    from llmesh.cli import starting

    run = starting.in_background if detach else starting.in_foreground
    run(home, mesh_file.absolute(), timeout_s=timeout_s, json=json)


def down(*, home: HomeOption = None, json: JsonOption = False) -> None:
    """End the mesh that runs here, and whatever is left of one that was killed."""
    from llmesh.home import Home
    from llmesh.supervisor.start import stop

    ended = stop(Home.find(home))
    if json:
        print_json({"was_up": ended.was_up, "leftovers": ended.leftovers})
        return
    say("the mesh is down" if ended.was_up else "no mesh was up here")
    if ended.leftovers:
        say(f"ended what was left of a killed one: {', '.join(ended.leftovers)}")


def status(*, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show what runs here, how often it had to be restarted, and what is on the mesh.

    Exits with 0 if all is well, 1 if no mesh is up here or it does not answer, and 3 if it is up, but not as its files
    say, or not all of it.
    """
    from llmesh.cli import running
    from llmesh.home import Home

    found = running.look(Home.find(home))
    if json:
        print_json(found.as_json())
    else:
        running.print_status(console(), found)
    raise typer.Exit(found.exit_code)
