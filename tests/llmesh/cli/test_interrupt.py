"""Commands that are ended from the terminal, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.llmesh.cli.command import Command
from tests.llmesh.cli.conftest import REPO

LIMIT_S = 60
ECHO = "acme.testing.v1.Echo"


@contextmanager
def running(*args: str) -> Generator[subprocess.Popen[str]]:
    """A command whose stdin stays open."""
    pipe = subprocess.PIPE
    line = (sys.executable, "-c", "from llmesh.cli import main; main()", *args)
    with subprocess.Popen(line, cwd=REPO, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("signed_in")
def test_a_call_that_reads_stdin_ends_at_once_when_interrupted() -> None:
    with running("call", f"{ECHO}/Bidi", "-") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write('{"text": "a"}\n')
        process.stdin.flush()
        assert process.stdout.readline() == '{"text":"a"}\n'
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
        assert process.stderr
        assert process.stderr.read() == ""


@pytest.mark.usefixtures("signed_in")
def test_a_call_that_reads_stdin_tells_its_failure_though_more_may_come() -> None:
    with running("call", f"{ECHO}/Bidi", "-") as process:
        assert process.stdin
        process.stdin.write('{"text": ""}\n')
        process.stdin.flush()
        assert process.wait(LIMIT_S) == 1
        assert process.stderr
        assert "must be at least 1 characters" in process.stderr.read()


def test_an_interrupt_while_the_parts_load_is_silent(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "llmesh.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "llmesh.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    answer = command("token")
    assert (answer.code, answer.out, answer.err) == (130, "", "")
