"""The tool's folder is the path root of its packages, as when it runs; `acme` is a namespace that tools share."""

import sys
from pathlib import Path

import pytest

import llmesh
from llmesh.retrieval import Meanings, Passages

# Last, so that it hides nothing.
sys.path.append(str(Path(__file__).resolve().parent.parent))


@pytest.fixture
def meanings(tmp_path: Path) -> Meanings:
    """None that are learnt: words alone decide."""

    async def passages() -> Passages:
        return Passages([])

    return Meanings(tmp_path / "meanings", llmesh.OwnMesh(), passages)
