"""The pages made from models and tables are what those make, and leave nothing out."""

from __future__ import annotations

import re

import pytest

from docs import generate
from tests.docs.reader import REPO

VARIABLE = re.compile(r"\b((?:LLMESH|OTEL)_[A-Z_]*[A-Z])\b")


@pytest.mark.parametrize("name", generate.pages())
def test_a_generated_page_is_committed_as_it_is_made(name: str) -> None:
    assert (REPO / "docs" / name).read_text() == generate.pages()[name], "run `make docs`"


def test_every_variable_that_is_read_is_told() -> None:
    sources = [path for folder in ("llmesh", "gateway", "tools") for path in (REPO / folder).rglob("*.py")]
    read = {name for path in sources for name in VARIABLE.findall(path.read_text())}

    assert read - {*generate.PRIVATE} == {*generate.VARIABLES}


def test_every_key_and_every_figure_means_something() -> None:
    for name, text in generate.pages().items():
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
        assert rows
        assert not [row for row in rows if not row[-1].strip(" |")], name
