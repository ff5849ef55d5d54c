"""Ending a mesh while another begins in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import start
from llmesh.supervisor.processes import ProcessId
from llmesh.supervisor.supervise import MARK, held


def test_what_has_just_begun_is_not_ended_as_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.find(tmp_path / "m").create()
    # No mesh was up when it was looked for.
    monkeypatch.setattr(start, "is_up", lambda _home: False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    env = {**os.environ, MARK: str(home.path)}
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env=env) as process:
        found = ProcessId.of(process.pid)
        assert found
        try:
            with held(home), pytest.raises(Problem, match="the mesh is just being started"):
                start.stop(home)
            assert found.alive()
            assert start.stop(home).leftovers == (f"pid {process.pid}",)
        finally:
            process.kill()
