"""The figures of a whole mesh, Envoy's and the gateway's, for however many ask for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.clock import Clock
from gateway.operations.metrics import Metrics
from llmesh.admin import ask_socket

__all__ = ["METRICS", "Figures"]

METRICS = "/stats/prometheus?usedonly"
# How old an answer may be.
SHARED_S = 1.0


class Figures:
    """One scrape at a time: who asks while it runs, or soon after it has begun, is told what it finds."""

    def __init__(self, admin: Path, metrics: Metrics, *, clock: Clock) -> None:
        """Ask Envoy on its admin socket."""
        self._admin = admin
        self._metrics = metrics
        self._clock = clock
        # Its own, so that an Envoy which does not answer keeps no other work of the gateway's waiting.
        self._thread = ThreadPoolExecutor(1, "figures")
        self._scrape: asyncio.Task[bytes] | None = None
        self._began_s = 0.0

    async def text(self) -> bytes:
        """The figures, in Prometheus' text format."""
        now_s = self._clock.monotonic_s()
        if self._scrape is None or (self._scrape.done() and now_s - self._began_s >= SHARED_S):
            self._scrape, self._began_s = asyncio.create_task(self._ask()), now_s
        # Who goes away takes nothing from the others.
        return await asyncio.shield(self._scrape)

    def close(self) -> None:
        """No more is asked."""
        if self._scrape:
            self._scrape.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self) -> bytes:
        told = await asyncio.get_running_loop().run_in_executor(self._thread, ask_socket, self._admin, METRICS)
        return (told or b"") + self._metrics.text(envoy_answers=told is not None)
