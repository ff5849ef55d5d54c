"""How commands speak: tables and sentences to people, JSON to programs."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import TextIO, cast

from rich.console import Console
from rich.markup import escape

from llmesh.problem import Problem

PIPED_WIDTH = 240
# From the first of them alone: else it takes as many steps as the square of a line of spaces.
_FILL = re.compile(r"(?<! ) +(?=\n)")


class Trimmed(io.TextIOBase):
    """Writes to another without the spaces that rich fills lines up with, to the width that a pipe hasn't got."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] the base declares an attribute
        """For whoever wants to know what can be written."""
        return self._out.encoding

    def write(self, text: str, /) -> int:
        """Write text. What ends it is no fill: its line may go on."""
        self._out.write(_FILL.sub("", text))
        return len(text)

    def flush(self) -> None:
        """Have it written now."""
        self._out.flush()


def console() -> Console:
    """Where results go."""
    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=True)
    # What is piped is read by programs or scrolled: nothing is to be folded for a width that isn't there.
    out = cast("TextIO", Trimmed(sys.stdout))
    return Console(file=out, highlight=False, soft_wrap=True, width=PIPED_WIDTH)


def say(text: str) -> None:
    """One line of result; rich markup is read."""
    console().print(text)


def print_json(value: object) -> None:
    """One JSON document, or with NDJSON one line of many."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_json_line(value: object) -> None:
    """One JSON value on a line of its own, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_problem(problem: Problem) -> None:
    """What went wrong and what to do, on stderr."""
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    stderr.print(f"[bold red]error:[/] {escape(problem.message)}")
    if problem.step:
        stderr.print(f"  {escape(problem.step)}")


def print_warning(text: str, *, json_line: bool) -> None:
    """What must be told beside a result, on stderr; for programs as JSON."""
    if json_line:
        sys.stderr.write(json.dumps({"warning": text}, ensure_ascii=False) + "\n")
        sys.stderr.flush()
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold yellow]warning:[/] {escape(text)}")


def print_failure(failure: Mapping[str, object]) -> None:
    """What went wrong, for programs: one JSON line on stderr."""
    sys.stderr.write(json.dumps({"error": failure}, ensure_ascii=False) + "\n")
    sys.stderr.flush()
