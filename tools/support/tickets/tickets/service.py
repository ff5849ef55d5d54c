"""The methods of acme.support.v1.Tickets, over the ticket store."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager

import grpc
from acme.support.v1 import tickets_pb2 as pb
from acme.support.v1 import tickets_pb2_grpc

import llmesh
from tickets.bell import Bell
from tickets.messages import draft_from_request, to_change, to_summary, to_ticket
from tickets.paging import read_token, write_token
from tickets.store import Store
from tickets.suggest import suggest
from tickets.ticket import Filter, Maker, name_ticket, number_of

__all__ = ["TicketsService"]

log = logging.getLogger(__name__)

_PAGE_SIZE = 50
_SUGGESTIONS = 5
# What a watcher holds at most; a slow one reads the next when it has sent these.
_WATCH_PAGE = 100
# Other processes' changes ring no bell here: look again after this long.
_LOOK_AGAIN_S = 1.0


class TicketsService(tickets_pb2_grpc.TicketsServicer):
    """Support tickets in a store, which the service neither opens nor closes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bell = Bell()
        self._watchers = 0
        self._looking: asyncio.Task[None] | None = None

    async def CreateTicket(self, request: pb.CreateTicketRequest, context: object) -> pb.CreateTicketResponse:
        """Make a ticket in the caller's name."""
        caller = llmesh.current_call().caller
        maker = Maker(caller.issuer, caller.subject)
        draft = draft_from_request(request)
        ticket = await asyncio.to_thread(self._store.create, draft, maker, request_id=request.request_id)
        self._bell.ring()
        log.info("ticket created", extra={"ticket": name_ticket(ticket.number)})
        return pb.CreateTicketResponse(ticket=to_ticket(ticket))

    async def GetTicket(self, request: pb.GetTicketRequest, context: object) -> pb.GetTicketResponse:
        """One ticket whole."""
        ticket = await asyncio.to_thread(self._store.get, number_of(request.id))
        llmesh.current_call().cite(ticket=request.id)
        return pb.GetTicketResponse(ticket=to_ticket(ticket))

    async def ListTickets(self, request: pb.ListTicketsRequest, context: object) -> pb.ListTicketsResponse:
        """A page of tickets, the newest first."""
        filters = Filter(request.state, request.priority)
        before = read_token(request.page_token, filters) if request.page_token else None
        limit = request.page_size or _PAGE_SIZE
        page = await asyncio.to_thread(self._store.page, filters, limit=limit, before=before)
        return pb.ListTicketsResponse(
            tickets=[to_summary(ticket) for ticket in page.tickets],
            next_page_token=write_token(page.tickets[-1].number, filters) if page.more else "",
            sequence=page.sequence,
        )

    async def Suggest(self, request: pb.SuggestRequest, context: object) -> pb.SuggestResponse:
        """What other tools know about a ticket, asked by its title for the caller."""
        ticket = await asyncio.to_thread(self._store.get, number_of(request.id))
        return await suggest(llmesh.current_call(), ticket.title, limit=request.limit or _SUGGESTIONS)

    async def WatchTickets(
        self,
        request: pb.WatchTicketsRequest,
        context: grpc.aio.ServicerContext[pb.WatchTicketsRequest, pb.WatchTicketsResponse],
    ) -> AsyncIterator[pb.WatchTicketsResponse]:
        """Each change as it comes; headers go out once changes are sure to be seen."""
        if request.HasField("after_sequence"):
            sequence = request.after_sequence
        else:
            sequence = await asyncio.to_thread(self._store.last_sequence)
        with self._watching():
            ring = self._bell.next_ring
            changes = await asyncio.to_thread(self._store.changes_after, sequence, limit=_WATCH_PAGE)
            await context.send_initial_metadata(())
            while True:
                for change in changes:
                    yield to_change(change)
                    sequence = change.sequence
                if not changes:
                    await ring.wait()
                ring = self._bell.next_ring
                changes = await asyncio.to_thread(self._store.changes_after, sequence, limit=_WATCH_PAGE)

    @contextmanager
    def _watching(self) -> Generator[None]:
        """One more watcher; while there is any, somebody looks for other processes' changes."""
        self._watchers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="tickets: look")
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        """Ring for changes that rang no bell here, those of other processes."""
        last: int | None = None
        while True:
            try:
                sequence = await asyncio.to_thread(self._store.last_sequence)
            except sqlite3.Error:
                # The watchers wake, and meet it themselves.
                sequence = None
            if sequence is None or sequence != last:
                last = sequence
                self._bell.ring()
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def CloseTicket(self, request: pb.CloseTicketRequest, context: object) -> pb.CloseTicketResponse:
        """Close an open ticket."""
        ticket = await asyncio.to_thread(self._store.close_ticket, number_of(request.id), request.resolution)
        self._bell.ring()
        log.info("ticket closed", extra={"ticket": request.id})
        return pb.CloseTicketResponse(ticket=to_ticket(ticket))

    async def ReopenTicket(self, request: pb.ReopenTicketRequest, context: object) -> pb.ReopenTicketResponse:
        """Open a closed ticket again."""
        ticket = await asyncio.to_thread(self._store.reopen, number_of(request.id))
        self._bell.ring()
        log.info("ticket reopened", extra={"ticket": request.id})
        return pb.ReopenTicketResponse(ticket=to_ticket(ticket))

    async def DeleteTicket(self, request: pb.DeleteTicketRequest, context: object) -> pb.DeleteTicketResponse:
        """Delete a ticket for good."""
        await asyncio.to_thread(self._store.delete, number_of(request.id))
        self._bell.ring()
        log.info("ticket deleted", extra={"ticket": request.id})
        return pb.DeleteTicketResponse()
