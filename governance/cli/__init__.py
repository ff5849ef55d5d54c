"""`llmesh policy`: all of governance that reads, asks and prints. The rest is pure."""

from governance.cli.commands import policy

__all__ = ["policy"]
