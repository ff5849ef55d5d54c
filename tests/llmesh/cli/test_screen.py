"""Printing that never waits: for a pipe that nobody reads, one that is read late, and one that is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TextIO, cast

import pytest
from rich.console import Console

from llmesh.cli import screen
from llmesh.cli.screen import Screen
from llmesh.cli.starting import Terminal

TIMEOUT_S = 60.0
# More than a pipe and the screen hold.
LINES = 12_000


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """The end to read, and the end to write."""
    read, write = os.pipe()
    with ExitStack() as stack:
        reader = stack.enter_context(os.fdopen(read))
        writer = stack.enter_context(os.fdopen(write, "w"))
        yield reader, writer


def no_end() -> None:
    pytest.fail("the mesh was ended")


def test_a_mesh_goes_on_printing_though_nobody_reads_and_what_was_dropped_is_told(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    shown = Screen(writer, gone=no_end)
    terminal = Terminal(Console(file=cast("TextIO", shown), highlight=False, width=80), ["writer"], quiet=False)
    # Comes to an end only if no line waits for the pipe.
    with terminal.opened():
        for number in range(LINES):
            terminal.show("writer", str(number))
    reading = threading.Thread(target=lambda: read.extend(reader.read().splitlines()))
    read: list[str] = []
    reading.start()
    shown.finish(TIMEOUT_S)
    writer.close()
    reading.join(TIMEOUT_S)
    told = [line for line in read if line.startswith("[llmesh]")]
    dropped = sum(int(line.split()[1]) for line in told)
    assert dropped > 0
    # One more, which says that the mesh ends.
    assert dropped + len(read) - len(told) == LINES + 1
    assert read[-2] == f"writer | {LINES - 1}"


def test_nobody_waits_at_the_end_for_a_pipe_that_is_not_read(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    gone = threading.Event()
    shown = Screen(writer, gone=gone.set)
    shown.write("x" * 2**20)
    shown.finish(0)
    # Frees the thread, which hangs in its write; the next test's pipe may get the same number.
    reader.close()
    assert gone.wait(TIMEOUT_S)


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    shown = Screen(writer, gone=no_end)
    shown.write("x" * 2**20)
    assert reader.read(2**20) == "x" * 2**20
    shown.finish(TIMEOUT_S)


def test_a_reader_that_left_is_told_of_once(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    left: list[int] = []
    reader.close()
    shown = Screen(writer, gone=lambda: left.append(1))
    for _ in range(screen.MOST_PENDING + 1):
        shown.write("line\n")
    shown.finish(TIMEOUT_S)
    assert left == [1]
