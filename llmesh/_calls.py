"""The calls that a server is answering: what a drain waits for, and what the mesh can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmesh.api.calls.v1 import calls_pb2 as pb
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceServicer
from llmesh.call import Call
from llmesh.errors import Denied, MeshError

log = logging.getLogger("llmesh.server")


class CallsInFlight:
    """The tools' calls that are being answered."""

    def __init__(self) -> None:
        """Start with none."""
        self._open: dict[asyncio.Task[object], Call] = {}
        self._ended: dict[asyncio.Task[object], MeshError] = {}
        self._none = asyncio.Event()
        self._none.set()

    def count(self, call: Call) -> None:
        """Count the call of this task until gRPC has sent all of its answer, which is when the task ends."""
        task = asyncio.current_task()
        assert task is not None, "gRPC answers each call in a task"  # noqa: S101
        self._open[task] = call
        self._none.clear()
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[object]) -> None:
        del self._open[task]
        self._ended.pop(task, None)
        if not self._open:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return when no call is being answered."""
        await self._none.wait()

    def end(self, meant: Callable[[Call], bool], error: MeshError) -> int:
        """Cancel the calls that are meant, each of which then fails with the error; how many."""
        found = [task for task, call in self._open.items() if meant(call) and task not in self._ended]
        for task in found:
            self._ended[task] = error
            task.cancel()
        return len(found)

    def ended(self) -> MeshError | None:
        """Why the call of this task, which was cancelled, was; None if end() had no part in it."""
        task = asyncio.current_task()
        error = self._ended.get(task) if task else None
        if task is not None and error is not None:
            task.uncancel()
        return error


class CallServicer(CallServiceServicer):
    """Ends calls for the gateway."""

    def __init__(self, calls: CallsInFlight) -> None:
        """Of these."""
        self._calls = calls

    async def EndCalls(self, request: pb.EndCallsRequest, context: object) -> pb.EndCallsResponse:
        """End those that are meant."""
        error = Denied(request.message, reason=request.reason, metadata=dict(request.facts))
        ended = self._calls.end(lambda call: _is_meant(request, call), error)
        log.warning("calls ended by the mesh", extra={"count": ended, "why": request.message})
        return pb.EndCallsResponse(ended=ended)


def _is_meant(request: pb.EndCallsRequest, call: Call) -> bool:
    path = call.method.removeprefix("/")
    match request.WhichOneof("calls"):
        case "services":
            return path.partition("/")[0] in request.services.names or call.caller.actor in request.services.names
        case "method":
            return path == request.method
        case _:
            asked = request.caller
            return (call.caller.issuer, call.caller.subject) == (asked.issuer, asked.subject)
