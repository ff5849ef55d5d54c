"""Health of the tools on the mesh, as grpc.health.v1 tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

from gateway.services.caller import current_caller
from gateway.services.visible import Seen, View
from llmesh.errors import NotFound

_Status = pb.HealthCheckResponse


class MeshHealthServicer(HealthServicer):
    """Says of a tool that the caller may see whether any endpoint of it answers now.

    The empty name is the mesh itself, which serves if it answers.
    """

    def __init__(self, view: View) -> None:
        """Answer from the view."""
        self._view = view

    async def Check(self, request: pb.HealthCheckRequest, context: object) -> pb.HealthCheckResponse:
        """SERVING or NOT_SERVING; NotFound for a tool that the caller may not see."""
        if not request.service:
            return _Status(status=_Status.SERVING)
        seen = self._view.tool(request.service, current_caller())
        if seen is None:
            raise NotFound(f"tool `{request.service}` is not on the mesh", resource=("tool", request.service))
        return _status_of(seen)

    async def Watch(self, request: pb.HealthCheckRequest, context: object) -> AsyncIterator[pb.HealthCheckResponse]:
        """The status now and each time it changes; SERVICE_UNKNOWN while the tool is not seen."""
        caller = current_caller()
        last = None
        async for _ in self._view.changes():
            whole = _Status(status=_Status.SERVING)
            status = _status_of(self._view.tool(request.service, caller)) if request.service else whole
            if status != last:
                yield status
            last = status


def _status_of(seen: Seen | None) -> pb.HealthCheckResponse:
    if seen is None:
        return _Status(status=_Status.SERVICE_UNKNOWN)
    return _Status(status=_Status.SERVING if seen.tool.ready else _Status.NOT_SERVING)
