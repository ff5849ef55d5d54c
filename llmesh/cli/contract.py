"""`llmesh contract`: a tool's types, for those who call it."""

from __future__ import annotations

import typer

app = typer.Typer(help="Get a tool's contract, and check your own.", no_args_is_help=True)


@app.callback()
def contract() -> None:
    """Get a tool's contract, and check your own."""
