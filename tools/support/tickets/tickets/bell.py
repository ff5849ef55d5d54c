"""Wakes whoever watches when something has changed."""

from __future__ import annotations

import asyncio

__all__ = ["Bell"]


class Bell:
    """Rung by one, heard by all who hold its `next_ring`.

    Take `next_ring`, look, and only then wait: so no ring is missed.
    """

    def __init__(self) -> None:
        self._ring = asyncio.Event()

    @property
    def next_ring(self) -> asyncio.Event:
        """Set at the next ring, once and for good."""
        return self._ring

    def ring(self) -> None:
        """Wake everyone."""
        self._ring.set()
        self._ring = asyncio.Event()
