"""The vocabulary: what a ticket is, and what can happen to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acme.support.v1 import tickets_pb2 as pb

__all__ = ["Change", "Draft", "Filter", "Maker", "Page", "Ticket", "name_ticket", "number_of"]

_PREFIX = "T-"


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes tickets: two issuers' same subject are two makers."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller says of a new ticket. No reporter: both fields are empty."""

    title: str
    description: str
    reporter_name: str
    reporter_email: str
    priority: pb.Priority.ValueType


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket. Times are Unix, in microseconds; close_us is None while it is open."""

    number: int
    title: str
    description: str
    reporter_name: str
    reporter_email: str
    priority: pb.Priority.ValueType
    state: pb.TicketState.ValueType
    resolution: str
    created_by: str
    create_us: int
    update_us: int
    close_us: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tickets to list. Unspecified: any."""

    state: pb.TicketState.ValueType = pb.TICKET_STATE_UNSPECIFIED
    priority: pb.Priority.ValueType = pb.PRIORITY_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Page:
    """Tickets, the newest first; `more` if others follow. sequence: of the last change they know of."""

    tickets: Sequence[Ticket]
    more: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and the ticket as it is now; None if it is deleted by now."""

    sequence: int
    kind: pb.ChangeKind.ValueType
    number: int
    change_us: int
    ticket: Ticket | None


def name_ticket(number: int) -> str:
    """The id that callers know a ticket by: "T-17"."""
    return f"{_PREFIX}{number}"


def number_of(ticket_id: str) -> int:
    """The number in an id that the contract's rule has let through."""
    return int(ticket_id.removeprefix(_PREFIX))
