"""The call that a servicer is answering: who makes it, how long there is, what it rests on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from llmesh.caller import Caller

if TYPE_CHECKING:
    from llmesh._delegation import DelegatedMesh

__all__ = ["Call", "current_call"]

PROVENANCE_MAX_BYTES = 4096
_TRUNCATED = '{"truncated":true}'
_current: ContextVar[Call] = ContextVar("llmesh_call")


class Call:
    """One call, for as long as a servicer answers it.

    method: its path, "/acme.support.v1.Tickets/GetTicket". call_id: the
    mesh's id for it, empty if it didn't come through the mesh.
    """

    __slots__ = ("_citations", "_early_s", "_mesh", "_remaining", "_room", "call_id", "caller", "method")

    def __init__(
        self,
        method: str,
        caller: Caller,
        *,
        call_id: str,
        remaining: Callable[[], float | None],
        mesh: Callable[[], DelegatedMesh],
    ) -> None:
        """A call by caller.

        remaining gives the seconds left of its deadline, None if it has none;
        mesh what the property of that name gives.
        """
        self.method = method
        self.caller = caller
        self.call_id = call_id
        self._remaining = remaining
        self._early_s = 0.0
        self._mesh = mesh
        self._citations: list[str] = []
        # What is left of the limit, less a bracket; negative once a citation did not fit.
        self._room = PROVENANCE_MAX_BYTES - 1

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left to answer, 0 when they have passed; None if the call has no deadline.

        A stream of answers is ended just before its deadline.
        """
        remaining = self._remaining()
        return None if remaining is None else max(remaining - self._early_s, 0.0)

    def end_early(self, early_s: float) -> None:
        """Have it end so many seconds before its deadline. For the SDK alone."""
        self._early_s = early_s

    @property
    def mesh(self) -> DelegatedMesh:
        """The mesh, to call other tools for this call's caller: `DocSearchStub(current_call().mesh.channel)`.

        Only the methods that the contract lists under `uses`, and of these what
        the rules permit both to the caller and to this tool; what is refused
        raises Denied. Raises ToolFailed if the method uses none, and Unavailable
        while the gateway is away.
        """
        return self._mesh()

    def cite(self, **facts: str | float | bool) -> None:
        """Say one thing that the answer rests on, as in `cite(document="guide.md", revision="7")`.

        Sent after the answer, or the error, as provenance. What no longer fits
        in 4 KiB is left out, the last ones first, and the answer says so. Raises
        TypeError or ValueError for a fact that JSON cannot hold.
        """
        citation = json.dumps(facts, separators=(",", ":"), allow_nan=False)
        if self._room < 0:
            # A stream may cite for hours; nobody will be told.
            return
        self._room -= len(citation) + len(",")
        # The one that no longer fits is kept as well: provenance sees by it that some are missing.
        self._citations.append(citation)

    def provenance(self, *, limit_bytes: int) -> str:
        """The citations as a compact JSON list in ASCII, cut to the limit; empty if there are none.

        A list that was cut ends with {"truncated":true}.
        """
        whole = f"[{','.join(self._citations)}]"
        if not self._citations or len(whole) <= limit_bytes:
            return whole if self._citations else ""
        kept: list[str] = []
        room = limit_bytes - len(f"[{_TRUNCATED}]")
        for citation in self._citations:
            room -= len(citation) + len(",")
            if room < 0:
                break
            kept.append(citation)
        return f"[{','.join([*kept, _TRUNCATED])}]"


def current_call() -> Call:
    """The call that this code is answering.

    Raises RuntimeError outside a servicer's method; tasks a method starts inherit it.
    """
    try:
        return _current.get()
    except LookupError:
        message = "no call here: current_call() works inside a servicer's method"
        raise RuntimeError(message) from None


def call_now() -> Call | None:
    """The call that this code is answering; None outside a servicer's method."""
    return _current.get(None)


def answer(call: Call) -> None:
    """Make this the current call of the running task."""
    _current.set(call)
