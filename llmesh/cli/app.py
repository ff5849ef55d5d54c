"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from llmesh.cli import audit, blocks, call, contract, fanout, identity, mesh, restart, tools
from llmesh.cli.output import say

app = typer.Typer(
    name="llmesh",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MESH = "The mesh on this machine"
STOP = "What is stopped"
YOU = "Who you are"
TOOLS = "What is on the mesh"

app.command("up", rich_help_panel=MESH)(mesh.up)
app.command("down", rich_help_panel=MESH)(mesh.down)
app.command("status", rich_help_panel=MESH)(mesh.status)
app.command("restart", rich_help_panel=MESH)(restart.restart)
app.command("block", rich_help_panel=STOP)(blocks.block)
app.command("unblock", rich_help_panel=STOP)(blocks.unblock)
app.command("blocks", rich_help_panel=STOP)(blocks.list_blocks)
app.command("login", rich_help_panel=YOU)(identity.login)
app.command("token", rich_help_panel=YOU)(identity.token)
app.add_typer(tools.app, name="tools", rich_help_panel=TOOLS)
app.command("call", rich_help_panel=TOOLS)(call.call)
app.command("fanout", rich_help_panel=TOOLS)(fanout.fanout)
app.add_typer(audit.app, name="audit", rich_help_panel=TOOLS)
app.add_typer(contract.app, name="contract", rich_help_panel=TOOLS)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 typer's callback
    if wanted:
        from importlib.metadata import version

        say(version("ll-mesh"))
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Publish LLM tools as gRPC services on one governed mesh, and call them.

    Start the mesh with [bold]llmesh up[/bold], see what is on it with [bold]llmesh tools list[/bold],
    and call it with [bold]llmesh call[/bold].
    """
