"""The calls that a server is answering: what a drain waits for, and what the mesh can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from llmesh.api.calls.v1 import calls_pb2 as pb
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceServicer
from llmesh.call import current_call
from llmesh.caller import ACTING_KEY, caller_from_metadata
from llmesh.errors import Denied, MeshError

log = logging.getLogger("llmesh.server")


class CallInFlight:
    """One call that has arrived, by the task that answers it."""

    __slots__ = ("acting", "begun", "caller", "method", "task", "waited_for", "why_ended")

    def __init__(self, method: str, metadata: Iterable[tuple[str, str | bytes]], task: asyncio.Task[object]) -> None:
        """method: its path. Its request may be yet to come."""
        metadata = tuple(metadata)
        self.method = method
        self.caller = caller_from_metadata(metadata)
        # Paths of methods that act for the caller.
        self.acting = {value for key, value in metadata if key.startswith(ACTING_KEY) and isinstance(value, str)}
        self.task = task
        self.begun = self.waited_for = False
        # None for as long as the mesh has not ended it.
        self.why_ended: MeshError | None = None

    def end(self, error: MeshError) -> None:
        """Have it fail with the error, now or, as gRPC has it, once its request has come."""
        self.why_ended = error
        if self.begun:
            self.task.cancel()

    def check(self) -> None:
        """Raise why it was ended, if it was: a servicer that goes on all the same sends nothing more."""
        if self.why_ended is not None:
            raise self.why_ended


class CallsInFlight:
    """The calls that have arrived at a server, and are not answered yet."""

    def __init__(self) -> None:
        """Start with none."""
        self._open: dict[asyncio.Task[object], CallInFlight] = {}
        self._waited_for = 0
        self._none = asyncio.Event()
        self._none.set()

    def arrive(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Count the call of this task until gRPC has sent all of its answer, which is when the task ends."""
        task = _this_task()
        self._open[task] = CallInFlight(method, metadata, task)
        task.add_done_callback(self._forget)

    def begin(self, *, standard: bool) -> CallInFlight:
        """The call of this task, whose request has come. standard: of a service that every server has.

        Raises KeyError if it has not arrived.
        """
        begun = self._open[_this_task()]
        begun.begun = True
        if not standard:
            begun.waited_for = True
            self._waited_for += 1
            self._none.clear()
        return begun

    def _forget(self, task: asyncio.Task[object]) -> None:
        if self._open.pop(task).waited_for:
            self._waited_for -= 1
            if not self._waited_for:
                self._none.set()

    async def wait_for_none(self) -> None:
        """Return when no call of a tool is being answered."""
        await self._none.wait()

    def end(self, meant: Callable[[CallInFlight], bool], error: MeshError) -> int:
        """End the calls that are meant, each of which then fails with the error; how many."""
        found = [each for each in self._open.values() if each.why_ended is None and meant(each)]
        for each in found:
            each.end(error)
        return len(found)


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None, "gRPC answers each call in a task"  # noqa: S101
    return task


class CallServicer(CallServiceServicer):
    """Ends calls for the gateway."""

    def __init__(self, calls: CallsInFlight) -> None:
        """Of these."""
        self._calls = calls

    async def EndCalls(self, request: pb.EndCallsRequest, context: object) -> pb.EndCallsResponse:
        """End those that are meant. Only the gateway may ask; whatever comes through the mesh has a call's id."""
        if current_call().call_id:
            raise Denied("only the gateway ends calls", reason="NOT_THE_GATEWAY")
        error = Denied(request.message, reason=request.reason, metadata=dict(request.facts))
        ended = self._calls.end(lambda each: _is_meant(request, each), error)
        log.warning("calls ended by the mesh", extra={"count": ended, "why": request.message})
        return pb.EndCallsResponse(ended=ended)


def _is_meant(request: pb.EndCallsRequest, one: CallInFlight) -> bool:
    methods = {path.removeprefix("/") for path in (one.method, *one.acting)}
    match request.WhichOneof("calls"):
        case "services":
            return any(method.partition("/")[0] in request.services.names for method in methods)
        case "method":
            return request.method in methods
        case _:
            return (one.caller.issuer, one.caller.subject) == (request.caller.issuer, request.caller.subject)
