"""Legs that a test ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from gateway.fanout.lines import Lines
from tests.gateway.fanout.hand_legs import HandLegs


@pytest.fixture
async def legs(tmp_path: Path) -> AsyncGenerator[HandLegs]:
    made = HandLegs(Lines(tmp_path / "none.sock"))
    yield made
    await made.stop()
