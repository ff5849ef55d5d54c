"""The tool's folder is the path root of its packages, as when it runs; `acme` is a namespace that tools share."""

import sys
from pathlib import Path

import pytest

import llmesh
from llmesh.retrieval import Meanings, Passages

# Last, so that it hides nothing.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from doc_search.cache import load_or_build
from doc_search.index import Index


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the index of this Python's library."""
    folder = tmp_path_factory.mktemp("cache")
    load_or_build(folder)
    return folder


@pytest.fixture(scope="session")
def index(cache: Path) -> Index:
    """The real index, as a second start loads it."""
    return load_or_build(cache)


@pytest.fixture
def meanings(tmp_path: Path) -> Meanings:
    """None that are learnt: words alone decide."""

    async def passages() -> Passages:
        return Passages([])

    return Meanings(tmp_path / "meanings", llmesh.OwnMesh(), passages)
