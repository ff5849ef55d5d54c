"""Health of one server's services (grpc.health.v1): serving until it drains.

The servicer that grpcio-health-checking ships forgets a service's watchers
when one of several hangs up, and each open watch would hold up a drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc  # pyright: ignore[reportMissingTypeStubs]: it ships none

from llmesh.errors import NotFound


class HealthServicer(health_pb2_grpc.HealthServicer):
    """SERVING for each service and for the server ("") from the start; NOT_SERVING once it drains."""

    def __init__(self, services: Iterable[str]) -> None:
        """Know these services, by full name."""
        self._services = frozenset({"", *services})
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Say NOT_SERVING from now on, to the watchers too."""
        self._draining.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
        """The status of one service. Raises NotFound for one that isn't here."""
        if request.service not in self._services:
            message = f"service `{request.service}` is not served here"
            raise NotFound(message, resource=("service", request.service))
        return self._status(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one service now, and when it changes."""
        yield self._status(request.service)
        await self._draining.wait()
        if request.service in self._services:
            yield self._status(request.service)
        # The watch stays open, as its protocol has it, until the server goes.
        await asyncio.Event().wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        status = health_pb2.HealthCheckResponse
        if service not in self._services:
            return status(status=status.SERVICE_UNKNOWN)
        return status(status=status.NOT_SERVING if self._draining.is_set() else status.SERVING)
