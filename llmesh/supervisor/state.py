"""What the supervisor says of itself and its children: state/supervisor.json.

The supervisor is its one writer; `status`, `down` and the next `up` read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from llmesh.home import Home, write_atomically
from llmesh.supervisor.processes import ProcessId


class Condition(StrEnum):
    """What a child does now. One that is unresponsive runs, and will be killed if it stays so."""

    RUNNING = "running"
    UNRESPONSIVE = "unresponsive"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child. pid is 0 when it doesn't run; since is in Unix seconds; answers: it has, and still does."""

    name: str
    state: Condition = Condition.STOPPED
    pid: int = 0
    start_ticks: int = 0
    restarts: int = 0
    last_exit: str = ""
    since: float = 0.0
    answers: bool = False

    @property
    def process(self) -> ProcessId:
        """The process that is or was this child."""
        return ProcessId(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The supervisor, where its mesh listens, and its children in the order of their start."""

    pid: int
    start_ticks: int
    address: str
    mesh_file: str
    since: float
    children: tuple[ChildState, ...] = ()

    @property
    def process(self) -> ProcessId:
        """The process that wrote this."""
        return ProcessId(self.pid, self.start_ticks)

    def write(self, home: Home) -> None:
        """Replace supervisor.json."""
        write_atomically(home.supervisor, _FORM.dump_json(self, indent=2))


_FORM = TypeAdapter(SupervisorState)


def read_state(home: Home) -> SupervisorState | None:
    """The state last written; None if there is none that can be read."""
    try:
        return _FORM.validate_json(home.supervisor.read_bytes())
    except (OSError, ValidationError):
        return None
