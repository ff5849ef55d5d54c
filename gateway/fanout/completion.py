"""When enough have answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.errors import InvalidCall, Violation

__all__ = ["Progress", "progress"]

Ends = pb.Summary


def _needed(completion: pb.Completion.ValueType, quorum: int, asked: int) -> int:
    """How many of those asked must answer. Raises InvalidCall for a quorum that does not fit."""
    if completion == pb.COMPLETION_QUORUM:
        if not 1 <= quorum <= asked:
            raise _bad_quorum(f"is {quorum}, and must be from 1 to {asked}, which is how many are asked")
        return quorum
    if quorum:
        raise _bad_quorum("is for COMPLETION_QUORUM alone")
    return {pb.COMPLETION_FIRST_OK: 1, pb.COMPLETION_BEST_EFFORT: 0}.get(completion, asked)


def _bad_quorum(what: str) -> InvalidCall:
    return InvalidCall(f"`quorum` {what}", [Violation("quorum", what, "QUORUM")], reason="BAD_QUORUM")


@dataclass(slots=True)
class Progress:
    """How far a fan-out is.

    needed: how many must answer. patient: it goes on though enough have, or cannot any more.
    """

    asked: int
    needed: int
    patient: bool
    answered: int = 0
    failed: int = 0

    @property
    def met(self) -> bool:
        """Whether enough have answered."""
        return self.answered >= self.needed

    def count(self, *, ok: bool) -> None:
        """One more has ended."""
        if ok:
            self.answered += 1
        else:
            self.failed += 1

    def end(self) -> pb.Summary.End.ValueType | None:
        """Why it ends now; None if it goes on."""
        if self.answered + self.failed == self.asked:
            return Ends.END_ALL_ENDED
        if self.patient:
            return None
        if self.met:
            return Ends.END_ENOUGH
        return Ends.END_OUT_OF_REACH if self.asked - self.failed < self.needed else None


def progress(completion: pb.Completion.ValueType, quorum: int, asked: int) -> Progress:
    """A fan-out that has begun. Raises InvalidCall for a quorum that does not fit."""
    impatient = completion in (pb.COMPLETION_FIRST_OK, pb.COMPLETION_QUORUM)
    return Progress(asked, _needed(completion, quorum, asked), patient=not impatient)
