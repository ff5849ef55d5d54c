"""One mesh with the echo tool for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.mesh import ECHO, RunningMesh, running_mesh


@pytest.fixture(scope="session")
def mesh() -> Iterator[RunningMesh]:
    """A mesh that tests share: nobody may stop a part of it."""
    with running_mesh() as running:
        running.start_echo()
        running.wait_ready(ECHO)
        yield running
