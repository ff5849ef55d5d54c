"""Fixtures of the tests of the supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmesh.home import Home
from llmesh.supervisor import child as children
from llmesh.supervisor.processes import end, marked
from llmesh.supervisor.supervise import MARK, shared_memory


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.find(tmp_path / "m").create()
    yield home
    end(marked(f"{MARK}={home.path}"), grace_s=0)
    shared_memory(home).unlink(missing_ok=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(children, "READY_POLL_S", 0.01)
