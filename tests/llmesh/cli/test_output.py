"""What is written where no terminal is."""

from __future__ import annotations

import io

from llmesh.cli.output import Trimmed


def test_spaces_that_fill_a_line_up_are_left_out_and_those_between_two_writes_are_not() -> None:
    out = io.StringIO()
    trimmed = Trimmed(out)
    for text in ("7 tools, ", "7 contracts   \n", "a  b  \n\n"):
        trimmed.write(text)
    assert out.getvalue() == "7 tools, 7 contracts\na  b\n\n"


def test_a_line_of_spaces_without_end_takes_no_more_than_its_length() -> None:
    out = io.StringIO()
    # By the square of its length it would take an hour.
    Trimmed(out).write(" " * 300_000 + "x")
    assert len(out.getvalue()) == 300_001
