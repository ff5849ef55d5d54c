"""Starting a mesh that cannot run, and ending one while another begins in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import start
from llmesh.supervisor.processes import ProcessId
from llmesh.supervisor.supervise import MARK, held
from tests.e2e.mesh import free_port


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


def test_a_mesh_that_cannot_run_starts_no_tool_and_says_why(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = [sys.executable, "-c", f"open({str(started)!r}, 'w')"]
    mesh_file = tmp_path / "mesh.yaml"
    mesh_file.write_text(
        yaml.safe_dump(
            {
                "listen": f"127.0.0.1:{free_port()}",
                "operations": "",
                "policies": "nowhere",
                "processes": [{"name": "tool", "command": command, "folder": str(tmp_path)}],
            }
        )
    )
    code = f"from pathlib import Path; from llmesh.supervisor import start; start.start(Path({str(tmp_path / 'm')!r}), "
    code += f"Path({str(mesh_file)!r}), sink=lambda *_: None)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "Problem: the gateway cannot start: " in ended.stderr
    assert "mesh.yaml is missing" in ended.stderr
    assert not started.exists()
