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
