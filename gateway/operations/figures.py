"""The figures of a whole mesh, Envoy's and the gateway's, for however many ask for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.clock import Clock
from gateway.operations.metrics import Metrics
from llmesh.admin import ask_socket
from llmesh.home import Home
from llmesh.supervisor.state import ChildState, read_state

__all__ = ["METRICS", "Figures"]

METRICS = "/stats/prometheus?usedonly"
# How old an answer may be.
SHARED_S = 1.0


class Figures:
    """One scrape at a time: who asks while it runs, or soon after it has begun, is told what it finds."""

    def __init__(self, home: Home, metrics: Metrics, *, clock: Clock) -> None:
        """Ask Envoy on the home's admin socket, and read there what the supervisor says."""
        self._home = home
        self._metrics = metrics
        self._clock = clock
        # Its own, so that an Envoy or a disk which does not answer keeps no other work of the gateway's waiting.
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
        envoy, processes = await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        return (envoy or b"") + self._metrics.text(envoy_answers=envoy is not None, processes=processes)

    def _look(self) -> tuple[bytes | None, tuple[ChildState, ...]]:
        """What Envoy tells, if it answers, and the processes of the supervisor, if there is one."""
        state = read_state(self._home)
        return ask_socket(self._home.admin_socket, METRICS), state.children if state else ()
