"""What a block is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Action", "Block", "CallerId", "Change", "Kind", "Target"]


class Kind(StrEnum):
    """What can be stopped."""

    TOOL = "tool"
    METHOD = "method"
    DOMAIN = "domain"
    CALLER = "caller"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What a block stops. name: service, "service/Method", domain or subject; issuer: of a caller alone."""

    kind: Kind
    name: str
    issuer: str = ""

    @property
    def service(self) -> str:
        """The tool's service, or the one that has the method; empty for others."""
        return self.name.partition("/")[0] if self.kind in (Kind.TOOL, Kind.METHOD) else ""

    def __str__(self) -> str:
        """As people read it."""
        if self.kind is Kind.CALLER:
            return f"the caller `{self.name}` of the issuer `{self.issuer}`"
        return f"the {self.kind} `{self.name}`"


@dataclass(frozen=True, slots=True, order=True)
class CallerId:
    """Which caller, whatever it is granted."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Block:
    """A target that is stopped, why, since when and until when: Unix microseconds; None: until it is ended."""

    id: str
    target: Target
    reason: str
    by: CallerId
    at_us: int
    until_us: int | None = None


class Action(StrEnum):
    """What was done with a block."""

    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Change:
    """One step in a block's life. number: grows. by: None where it ended by itself. reason: why it was ended."""

    action: Action
    block: Block
    at_us: int
    by: CallerId | None
    reason: str = ""
    number: int = 0
