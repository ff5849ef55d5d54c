"""What is counted for those who run the mesh."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.clock import Clock


@dataclass(slots=True)
class Tally:
    """How often something was done, the seconds it took in all, and how many are being done now."""

    count: int = 0
    seconds: float = 0.0
    running: int = 0

    @contextmanager
    def timed(self, clock: Clock) -> Generator[None]:
        """Count what the block does, however it ends."""
        began_s = clock.monotonic_s()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.count += 1
            self.seconds += clock.monotonic_s() - began_s
