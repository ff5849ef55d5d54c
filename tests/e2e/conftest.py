"""One mesh with the echo tool for all tests that leave it as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.mesh import ECHO, REPO, RunningMesh, running_mesh

# The reference tools' stubs. Last, so that nothing there hides another package;
# `acme` is a namespace that every tool's folder adds to.
sys.path += [str(folder) for folder in sorted(REPO.glob("tools/*/*")) if str(folder) not in sys.path]


@pytest.fixture(scope="session")
def mesh() -> Iterator[RunningMesh]:
    """A mesh that tests share: nobody may stop a part of it."""
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running
