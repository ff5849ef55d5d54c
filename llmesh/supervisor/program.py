"""What the supervisor runs, and how it asks what runs whether it still answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Probe(Protocol):
    """Asks one process, for as long as it lives."""

    async def answers(self) -> bool | None:
        """Whether it answers in time; None if there is nobody to ask, which says nothing of the process."""
        ...

    async def started(self) -> bool:
        """Whether one that answers has begun its work: from then on it is given less time to answer."""
        ...

    async def missing(self) -> str:
        """What keeps it from taking over from the process before it; empty if nothing does."""
        ...

    async def close(self) -> None:
        """Ask no more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: argv in cwd with exactly this environment.

    stop_rank orders the end: programs of a lower rank have ended before those
    of the next are asked to. grace_s is what one gets to end by itself. It is
    not started before the files `after` exist.

    probe: given a process id and an epoch, whom to ask; None: nobody can be.
    A process that doesn't answer for patience_s is killed. epoch: the option
    that tells a process how many others it succeeds without a gap; given one,
    the process before it is ended by it, not by us. needs: the name of the
    program without which no new process becomes ready. prepare: to be done
    before another process succeeds the one that runs; returns what undoes it.
    background: the mesh is up without it; it begins once the others answer.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_rank: int = 0
    grace_s: float = 5.0
    after: tuple[Path, ...] = ()
    probe: Callable[[int, int], Probe] | None = None
    patience_s: float = 30.0
    epoch: str = ""
    needs: str = ""
    prepare: Callable[[], Callable[[], None]] | None = None
    background: bool = False

    def line(self, epoch: int) -> tuple[str, ...]:
        """The command line of the process that succeeds that many others."""
        return (*self.argv, self.epoch, str(epoch)) if self.epoch else self.argv
