"""Figures for Prometheus: ours and vLLM's, at one address."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmesh.mesh_file import split_host_port
from model_server.models import Models

__all__ = ["Metrics"]


class Metrics(Collector):
    """Serves them while entered, from a thread; those of vLLM are in the same registry."""

    def __init__(self, models: Models, address: str) -> None:
        """address: IP:port; empty for nowhere."""
        self._models = models
        self._address = address
        self._serving: tuple[WSGIServer, Thread] | None = None

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
        """Open the port. Raises OSError if it can't be had."""
        if self._address:
            host, port = split_host_port(self._address)
            self._serving = start_http_server(port, host)
            REGISTRY.register(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        if self._serving:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()
            REGISTRY.unregister(self)
