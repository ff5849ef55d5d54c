"""Fixtures of the tests of blocks."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.gateway.blocks.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    made = Database(tmp_path)
    yield made
    if made.engine:
        made.engine.dispose()
