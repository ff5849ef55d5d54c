"""How many fan-outs run, and how those before them ended: what metrics tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.fanout.run import Run
from llmesh.api.mesh.v1 import mesh_pb2 as pb

__all__ = ["Counts"]


@dataclass(eq=False, slots=True)
class Counts:
    """Of this process. ended: why; END_UNSPECIFIED for those whose caller left. branches: of those told, by code."""

    running: int = 0
    ended: Counter[pb.Summary.End.ValueType] = field(default_factory=Counter["pb.Summary.End.ValueType"])
    branches: Counter[int] = field(default_factory=Counter[int])

    @contextmanager
    def of(self, run: Run) -> Generator[None]:
        """Count a fan-out that runs for as long as the block lasts."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            over = run.end if run.over else None
            self.ended[over or pb.Summary.END_UNSPECIFIED] += 1

    def told(self, branches: Iterable[pb.Branch]) -> None:
        """Count those of these branches that have ended."""
        for branch in branches:
            if branch.HasField("status"):
                self.branches[branch.status.code] += 1
