"""Tickets as messages of their contract, and back."""

from __future__ import annotations

from acme.support.v1 import tickets_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from tickets.ticket import Change, Draft, Ticket, name_ticket

__all__ = ["draft_from_request", "to_change", "to_summary", "to_ticket"]


def draft_from_request(request: pb.CreateTicketRequest) -> Draft:
    """What the request says of the new ticket."""
    return Draft(
        title=request.title,
        description=request.description,
        reporter_name=request.reporter.name,
        reporter_email=request.reporter.email,
        priority=request.priority or pb.PRIORITY_NORMAL,
    )


def to_ticket(ticket: Ticket) -> pb.Ticket:
    """The ticket whole."""
    message = pb.Ticket(
        id=name_ticket(ticket.number),
        title=ticket.title,
        description=ticket.description,
        priority=ticket.priority,
        state=ticket.state,
        resolution=ticket.resolution,
        created_by=ticket.created_by,
        create_time=_time(ticket.create_us),
        update_time=_time(ticket.update_us),
        close_time=None if ticket.close_us is None else _time(ticket.close_us),
    )
    if ticket.reporter_name or ticket.reporter_email:
        message.reporter.name = ticket.reporter_name
        message.reporter.email = ticket.reporter_email
    return message


def to_summary(ticket: Ticket) -> pb.TicketSummary:
    """The ticket without anything personal or confidential."""
    return pb.TicketSummary(
        id=name_ticket(ticket.number),
        title=ticket.title,
        priority=ticket.priority,
        state=ticket.state,
        create_time=_time(ticket.create_us),
        update_time=_time(ticket.update_us),
    )


def to_change(change: Change) -> pb.WatchTicketsResponse:
    """The change, with a summary of the ticket if it is still there."""
    return pb.WatchTicketsResponse(
        sequence=change.sequence,
        kind=change.kind,
        ticket_id=name_ticket(change.number),
        ticket=None if change.ticket is None else to_summary(change.ticket),
        change_time=_time(change.change_us),
    )


def _time(time_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp
