"""What to run, and what is said where that cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import plan
from llmesh.supervisor.program import Program


@pytest.mark.parametrize(
    ("said", "message", "step"),
    [
        ("gateway: Value error, `0.0.0.0` is open", "`0.0.0.0` is open", "mend that, then start again: llmesh up"),
        ("gateway: {file}:2: no", "{file}:2: no", "mend that, then start again: llmesh up"),
        ("Traceback\\nKeyError: 1", "KeyError: 1", "see what it says: {gateway} gateway.bootstrap {file}"),
        ("", "it says nothing", "see what it says: {gateway} gateway.bootstrap {file}"),
    ],
    ids=["a value", "a line", "a fault", "nothing"],
)
def test_a_gateway_that_cannot_start_says_what_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str, step: str
) -> None:
    file, gateway = tmp_path / "mesh.yaml", tmp_path / "gateway"
    gateway.write_text(f"#!/bin/sh\nprintf '{said.format(file=file)}' >&2\nexit 1\n")
    gateway.chmod(0o700)
    monkeypatch.setattr(plan, "_gateway", lambda module, _home, mesh: (str(gateway), module, str(mesh)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(Problem) as raised:
        plan.write_bootstrap(Home.find(tmp_path / "m").create(), file)
    assert raised.value.message == f"the gateway cannot start: {message.format(file=file)}"
    assert raised.value.step == step.format(file=file, gateway=gateway)


@pytest.fixture
def mesh_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mesh file, and a gateway whose bootstrap is that file's content."""
    file = tmp_path / "mesh.yaml"
    file.write_text("listen: 127.0.0.1:8700\n")
    monkeypatch.setattr(plan, "_gateway", lambda _command, _home, mesh: ("cat", str(mesh)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return file


def envoy(home: Home, mesh_file: Path) -> Program:
    return next(each for each in plan.read(home, mesh_file).programs if each.name == "envoy")


def test_a_restart_of_envoy_takes_up_what_changed_in_the_mesh_file(tmp_path: Path, mesh_file: Path) -> None:
    home = Home.find(tmp_path / "m").create()
    plan.write_bootstrap(home, mesh_file)
    before, prepare = mesh_file.read_text(), envoy(home, mesh_file).prepare
    assert prepare
    changed = before + "limits: {file_bytes: 2000000}\n"
    mesh_file.write_text(changed)
    undo = prepare()
    assert (home.state / "envoy.json").read_text() == changed
    undo()
    assert (home.state / "envoy.json").read_text() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [("listen: 127.0.0.1:8701\n", "another place to listen at than 127.0.0.1:8700"), ("listen: [\n", "mesh.yaml")],
    ids=["another port", "no mesh file"],
)
def test_a_restart_of_envoy_that_would_take_up_what_it_cannot_is_refused(
    tmp_path: Path, mesh_file: Path, content: str, said: str
) -> None:
    home = Home.find(tmp_path / "m").create()
    plan.write_bootstrap(home, mesh_file)
    before, prepare = mesh_file.read_text(), envoy(home, mesh_file).prepare
    assert prepare
    mesh_file.write_text(content)
    with pytest.raises(Problem) as raised:
        prepare()
    assert said in raised.value.message
    assert "the old one goes on" in raised.value.step
    assert (home.state / "envoy.json").read_text() == before


def test_the_model_server_is_run_where_its_environment_is_and_nobody_waits_for_it(tmp_path: Path) -> None:
    home, file = Home.find(tmp_path / "m").create(), tmp_path / "mesh.yaml"
    file.write_text("model_server: {environment: models, model: /big, context_length: 512}\n")
    assert "model_server" not in {each.name for each in plan.read(home, file).programs}
    python = tmp_path / "models/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    # As long as `make model` is at work, it could only crash.
    assert "model_server" not in {each.name for each in plan.read(home, file).programs}
    (python.parent / "llmesh").touch()
    planned = plan.read(home, file)
    program = next(each for each in planned.programs if each.name == "model_server")
    assert program.argv[:4] == (str(python), "-P", "-m", "model_server")
    assert {"--model=/big", "--context-length=512", "--metrics=127.0.0.1:8702"} <= set(program.argv)
    assert planned.tools == ()


def test_no_other_process_is_called_model_server(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("model_server: {}\nprocesses: [{name: model_server, folder: tool}]\n")
    with pytest.raises(Problem, match="`model_server` comes twice"):
        plan.read(Home.find(tmp_path / "m"), file)


def test_the_mesh_is_up_without_a_process_in_the_background(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("policies: .\nprocesses:\n- {name: a, folder: a}\n- {name: b, folder: b, background: true}\n")

    planned = plan.read(Home.find(tmp_path / "m"), file)

    assert planned.tools == ("a",)
    assert [program.name for program in planned.programs if program.background] == ["b"]
