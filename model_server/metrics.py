"""Figures for Prometheus: ours and vLLM's, at one address."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from threading import Event, Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmesh.mesh_file import split_host_port
from model_server.models import Models

__all__ = ["Metrics"]

log = logging.getLogger("llmesh.model")

# How often an address is asked for that another has.
RETRY_S = 0.5


class Metrics(Collector):
    """Serves them while entered, from a thread; those of vLLM are in the same registry."""

    def __init__(self, models: Models, address: str) -> None:
        """address: IP:port; empty for nowhere."""
        self._models = models
        self._address = address
        self._serving: tuple[WSGIServer, Thread] | None = None
        self._opening: Thread | None = None
        self._closing = Event()

    def collect(self) -> Iterator[Metric]:
        """What is known of each model now."""
        ready = GaugeMetricFamily("llmesh_model_ready", "Whether the model answers.", labels=["model"])
        restarts = CounterMetricFamily(
            "llmesh_model_restarts", "How often what runs the model ended and was started again.", labels=["model"]
        )
        for each in self._models:
            ready.add_metric([each.id], float(each.ready))
            restarts.add_metric([each.id], each.restarts)
        yield from (ready, restarts)

    def __enter__(self) -> Self:
        """Open the port, once whom this server replaces has left it. Raises OSError if it can't be had at all."""
        if self._address:
            REGISTRY.register(self)
            try:
                self._open()
            except OSError as err:
                if err.errno != errno.EADDRINUSE:
                    raise
                log.info("figures wait for their address", extra={"address": self._address})
                self._opening = Thread(target=self._open_later, name="figures", daemon=True)
                self._opening.start()
        return self

    def _open(self) -> None:
        """Open the port. Raises OSError."""
        host, port = split_host_port(self._address)
        self._serving = start_http_server(port, host)

    def _open_later(self) -> None:
        """Open it as soon as it can be had, whatever is in the way."""
        why = errno.EADDRINUSE
        while not self._closing.wait(RETRY_S):
            try:
                self._open()
            except OSError as err:
                if err.errno != why:
                    log.warning("figures have no address", extra={"address": self._address, "reason": str(err)})
                    why = err.errno
            else:
                return

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self._closing.set()
        if self._opening:
            self._opening.join()
        if self._serving:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()
        if self._address:
            REGISTRY.unregister(self)
