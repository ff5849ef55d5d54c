"""Commands run in this process, against a stand-in of the mesh in another."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llmesh.cli.command import Command

HERE = Path(__file__).parent
REPO = HERE.parents[2]


@pytest.fixture(scope="session")
def mesh() -> Iterator[str]:
    """The address of a stand-in of the mesh."""
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        path = f"{folder}/s/mesh.sock"
        env = {"PYTHONPATH": f"{REPO}:{REPO / 'tests/tools/echo'}"}
        with subprocess.Popen([sys.executable, HERE / "stand_in.py", path], env=env, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"serving\n"
            yield f"unix:{path}"
            process.terminate()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs commands with a mesh directory of the test's own; nobody is signed in."""
    for name in ("LLMESH_TOKEN", "LLMESH_ADDRESS", "LLMESH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="llmesh-") as folder:
        monkeypatch.setenv("LLMESH_HOME", f"{folder}/home")
        stdin = Path(folder, "stdin")
        stdin.touch()
        with stdin.open() as file:
            monkeypatch.setattr(sys, "stdin", file)

            def type_in(text: str) -> None:
                stdin.write_text(text)
                file.seek(0)

            yield Command(capsys, type_in)


@pytest.fixture
def signed_in(command: Command, mesh: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same, with somebody signed in, and the stand-in as the mesh."""
    monkeypatch.setenv("LLMESH_ADDRESS", mesh)
    assert command("login", "--as", "ana", "--role", "developer").code == 0
    return command
