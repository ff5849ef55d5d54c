"""The command line, `llmesh`: one module per noun.

A command says what it did on stdout and, with --json, says it to programs; what
went wrong is one sentence and a next step on stderr (`edge`). An installed
package adds commands by an entry point of the group `llmesh.commands` (`join`).
"""

from __future__ import annotations

import sys

__all__ = ["main"]


# What a shell expects of a command that Ctrl-C ended.
INTERRUPTED = 130


def main() -> None:
    """Run the command that the process's arguments name, and exit."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> None:
    # The parts load here, not with the package: whoever imports it to start
    # something else shouldn't pay for them, and Ctrl-C may come while they load.
    from llmesh.cli import edge

    with edge.told():
        from llmesh.cli.app import app
        from llmesh.cli.join import join

        join(app, sys.argv[1:])
        app(prog_name="llmesh")
