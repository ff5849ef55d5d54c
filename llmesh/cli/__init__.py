"""The command line, `llmesh`: one module per noun.

A command says what it did on stdout and, with --json, says it to programs; what
went wrong is one sentence and a next step on stderr (`edge`). An installed
package adds commands by an entry point of the group `llmesh.commands` (`join`).
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the process's arguments name, and exit."""
    # The parts load here, not with the package: whoever imports it to start
    # something else shouldn't pay for them.
    from llmesh.cli import edge
    from llmesh.cli.app import app
    from llmesh.cli.join import join

    with edge.told():
        join(app, sys.argv[1:])
        app(prog_name="llmesh")
