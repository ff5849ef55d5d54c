"""How an installed package adds commands of its own.

Its entry point in the group `llmesh.commands` is named for a group of commands,
new (`policy`) or ours (`contract`), and points to a `typer.Typer`; the commands
of that are added to the group. A package is loaded only when its group is asked
for or the groups are listed, so it costs the others nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

import typer

from llmesh.problem import Problem

ENTRY_POINTS = "llmesh.commands"
COMPLETION = "_LLMESH_COMPLETE"


def join(app: typer.Typer, args: Sequence[str]) -> None:
    """Add to app what installed packages offer for the command that args name.

    Raises Problem if the package that the command needs cannot be loaded.
    """
    named = next((arg for arg in args if not arg.startswith("-")), "")
    own = {command.name for command in app.registered_commands}
    if named in own and COMPLETION not in os.environ:
        return
    for point in entry_points(group=ENTRY_POINTS):
        if named in ("", point.name):
            _add(app, point, wanted=point.name == named)


def _add(app: typer.Typer, point: EntryPoint, *, wanted: bool) -> None:
    """Add one package's commands; one that cannot be loaded is left out unless it is wanted."""
    try:
        offered = point.load()
    except (ImportError, AttributeError) as err:
        if _group(app, point.name) or not wanted:
            return
        raise Problem(
            f"`llmesh {point.name}` cannot be loaded: {err}", "install what it needs: pip install 'll-mesh[gateway]'"
        ) from err
    if not isinstance(offered, typer.Typer):
        raise Problem(f"the entry point `{point.name}` of {ENTRY_POINTS} is no typer.Typer")
    group = _group(app, point.name)
    if group is None:
        app.add_typer(offered, name=point.name, rich_help_panel="More")
    elif group is not offered:
        group.registered_commands += offered.registered_commands
        group.registered_groups += offered.registered_groups


def _group(app: typer.Typer, name: str) -> typer.Typer | None:
    return next((group.typer_instance for group in app.registered_groups if group.name == name), None)
