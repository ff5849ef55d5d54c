"""Health of one server's services (grpc.health.v1): serving while it is ready, until it drains.

The servicer that grpcio-health-checking ships forgets a service's watchers
when one of several hangs up, and each open watch would hold up a drain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc  # pyright: ignore[reportMissingTypeStubs]: it ships none

from llmesh.errors import NotFound
from llmesh.readiness import Readiness

_Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """SERVING for each service, for the server ("") and for its parts while they are ready; else NOT_SERVING."""

    def __init__(self, services: Iterable[str], readiness: Readiness) -> None:
        """Know these services, by full name."""
        self._services = frozenset({"", *services})
        self._readiness = readiness

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
        """The status of one service. Raises NotFound for one that isn't here."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            message = f"service `{request.service}` is not served here"
            raise NotFound(message, resource=("service", request.service))
        return _Status(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one service now, and when it changes. Open, as its protocol has it, until the server goes."""
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield _Status(status=status)
                # It may have changed while that was sent.
                continue
            await self._readiness.wait_for_change()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        ready = self._readiness.ready if service in self._services else self._readiness.of(service)
        if ready is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if ready else _Status.NOT_SERVING
