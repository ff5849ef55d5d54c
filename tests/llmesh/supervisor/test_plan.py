"""What to run, and what is said where that cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmesh.home import Home
from llmesh.problem import Problem
from llmesh.supervisor import plan


@pytest.mark.parametrize(
    ("said", "message", "step"),
    [
        ("gateway: Value error, `0.0.0.0` is open", "`0.0.0.0` is open", "mend that, then start again: llmesh up"),
        ("gateway: {file}:2: no", "{file}:2: no", "mend that, then start again: llmesh up"),
        ("Traceback\\nKeyError: 1", "KeyError: 1", "see what it says: {gateway} bootstrap {file}"),
        ("", "it says nothing", "see what it says: {gateway} bootstrap {file}"),
    ],
    ids=["a value", "a line", "a fault", "nothing"],
)
def test_a_gateway_that_cannot_start_says_what_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str, step: str
) -> None:
    file, gateway = tmp_path / "mesh.yaml", tmp_path / "gateway"
    gateway.write_text(f"#!/bin/sh\nprintf '{said.format(file=file)}' >&2\nexit 1\n")
    gateway.chmod(0o700)
    monkeypatch.setattr(plan, "_gateway", lambda command, _home, mesh: (str(gateway), command, str(mesh)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(Problem) as raised:
        plan.write_bootstrap(Home.find(tmp_path / "m").create(), file)
    assert raised.value.message == f"the gateway cannot start: {message.format(file=file)}"
    assert raised.value.step == step.format(file=file, gateway=gateway)
