"""The calls that a server is answering: what a drain waits for, and what the mesh can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from llmesh.api.calls.v1 import calls_pb2 as pb
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceServicer
from llmesh.call import Call, current_call
from llmesh.errors import Denied, MeshError

log = logging.getLogger("llmesh.server")


class CallInFlight:
    """One call that is being answered, by the task that answers it."""

    __slots__ = ("acting", "call", "standard", "task", "why_ended")

    def __init__(self, call: Call, acting: frozenset[str], task: asyncio.Task[object], *, standard: bool) -> None:
        """acting: paths of methods that act for the caller. standard: of a service that every server has."""
        self.call = call
        self.acting = acting
        self.task = task
        self.standard = standard
        # None for as long as the mesh has not ended it.
        self.why_ended: MeshError | None = None

    def end(self, error: MeshError) -> None:
        """Have it fail with the error."""
        self.why_ended = error
        self.task.cancel()

    def check(self) -> None:
        """Raise why it was ended, if it was: a servicer that goes on all the same sends nothing more."""
        if self.why_ended is not None:
            raise self.why_ended


class CallsInFlight:
    """The calls that a server is answering."""

    def __init__(self) -> None:
        """Start with none."""
        self._open: set[CallInFlight] = set()
        self._waited_for = 0
        self._none = asyncio.Event()
        self._none.set()

    def count(self, call: Call, acting: Iterable[str], *, standard: bool) -> CallInFlight:
        """Count the call of this task until gRPC has sent all of its answer, which is when the task ends."""
        task = asyncio.current_task()
        assert task is not None, "gRPC answers each call in a task"  # noqa: S101
        counted = CallInFlight(call, frozenset(acting), task, standard=standard)
        self._open.add(counted)
        if not standard:
            self._waited_for += 1
            self._none.clear()
        task.add_done_callback(lambda _: self._forget(counted))
        return counted

    def _forget(self, counted: CallInFlight) -> None:
        self._open.remove(counted)
        if not counted.standard:
            self._waited_for -= 1
            if not self._waited_for:
                self._none.set()

    async def wait_for_none(self) -> None:
        """Return when no call of a tool is being answered."""
        await self._none.wait()

    def end(self, meant: Callable[[CallInFlight], bool], error: MeshError) -> int:
        """End the calls that are meant, each of which then fails with the error; how many."""
        found = [each for each in self._open if each.why_ended is None and meant(each)]
        for each in found:
            each.end(error)
        return len(found)


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
    caller = one.call.caller
    methods = {path.removeprefix("/") for path in (one.call.method, *one.acting)}
    match request.WhichOneof("calls"):
        case "services":
            return any(method.partition("/")[0] in request.services.names for method in methods)
        case "method":
            return request.method in methods
        case _:
            return (caller.issuer, caller.subject) == (request.caller.issuer, request.caller.subject)
