"""The decision records as callers read them: everyone their own, an auditor all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gateway.clock import Clock
from gateway.records.logged import Outcome
from gateway.records.store import TREE_MAX, Filter, Record, Records
from gateway.services.caller import current_caller
from gateway.services.paging import batches, last_of, page_token
from gateway.services.readable import Readable
from gateway.services.visible import View
from gateway.services.watches import Watches
from governance.words import Caller
from llmesh.api.policy.v1 import facts_pb2 as policy_pb
from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceServicer as Base
from llmesh.errors import Denied, NotFound, Unavailable

_PAGE_SIZE = 100
# As often as there can be something new.
WATCH_EVERY_S = 0.2
WATCHED_AT_ONCE = 1000
RETRY_AFTER_S = 5.0
# For one page: records are read until it is full, but not for ever.
READ_AT_ONCE, READS_AT_MOST = 500, 10
# Questions at once; others of the gateway's threads are not theirs to take.
_QUESTIONS_AT_ONCE = 4
_OUTCOMES = {outcome: pb.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in Outcome}
_WOULD = {"allow": pb.OUTCOME_ALLOWED, "deny": pb.OUTCOME_DENIED}

T = TypeVar("T")


class Kept(Protocol):
    """Where the records are. records: None until they could first be opened."""

    @property
    def records(self) -> Records | None:
        """The records."""
        ...


class RecordServicer(Base):
    """Lists, follows and joins records. What the rules let in, it still shows only what is the caller's to read."""

    def __init__(self, kept: Kept, view: View, *, clock: Clock) -> None:
        """Nobody watches yet. view: what callers may see of the catalog."""
        self._kept = kept
        self._view = view
        self._clock = clock
        self._watches = Watches()
        self._threads = ThreadPoolExecutor(_QUESTIONS_AT_ONCE, "questions-of-records")

    async def ListRecords(self, request: pb.ListRecordsRequest, context: object) -> pb.ListRecordsResponse:
        """A page of records, the newest first. Raises Denied for a tool that acts for its caller, as all do."""
        readable, listing = self._readable(), f"records {request.filter.SerializeToString(deterministic=True)!r}"
        last = last_of(request.page_token, listing=listing)
        size = request.page_size or _PAGE_SIZE
        found, read = await self._found(request.filter, readable, before=int(last) if last else None, limit=size + 1)
        page = next(batches(map(record_message, found[:size])), list[pb.Record]())
        after = found[len(page) - 1].id if len(found) > len(page) else read
        more = "" if after is None else page_token(str(after), listing=listing)
        return pb.ListRecordsResponse(records=page, next_page_token=more)

    async def GetTree(self, request: pb.GetTreeRequest, context: object) -> pb.GetTreeResponse:
        """A call and all below it; NotFound if the caller may not read of it."""
        readable = self._readable()
        found = await self._ask(lambda records: records.tree(request.call_id, limit=TREE_MAX + 1))
        if not found or readable.told(found[0]) is None:
            message = f"there is no record of a call `{request.call_id}` that you may read"
            raise NotFound(message, resource=("call", request.call_id))
        told = [record for record in map(readable.told, found) if record]
        page = next(batches(map(record_message, told[:TREE_MAX])), list[pb.Record]())
        return pb.GetTreeResponse(records=page, truncated=len(page) < len(told))

    async def WatchRecords(
        self, request: pb.WatchRecordsRequest, context: object
    ) -> AsyncIterator[pb.WatchRecordsResponse]:
        """Each record that is made from now on."""
        readable = self._readable()
        wanted, outcome = readable.wanted(request.filter), request.filter.outcome
        with self._watches.one_more(readable.caller):
            last = await self._ask(lambda records: records.newest())
            yield pb.WatchRecordsResponse()
            while True:
                found, last = await self._ask(partial(_after, wanted, last))
                for record in found:
                    if told := readable.told(record, outcome=outcome):
                        yield pb.WatchRecordsResponse(records=[record_message(told)])
                await self._clock.sleep(WATCH_EVERY_S)

    def _readable(self) -> Readable:
        """What the caller may read. Raises Denied for a tool that acts for its caller."""
        caller = current_caller()
        if caller.actor:
            message = f"`{caller.actor}` may not read its caller's records: the caller has to ask, with their own token"
            raise Denied(message, reason="ACTS_FOR_CALLER")
        return Readable(self._view, caller)

    async def _found(
        self, asked: pb.RecordFilter, readable: Readable, *, before: int | None, limit: int
    ) -> tuple[list[Record], int | None]:
        """The newest so many as the caller reads them, newest first; only those before an id, if one is given.

        Fewer where most are not the caller's to read: then with the id of the last that was read; None: of all.
        """
        wanted, found, size = readable.wanted(asked), list[Record](), limit
        for _ in range(READS_AT_MOST):
            kept = await self._ask(partial(_before, wanted, before, size))
            found += [told for record in kept if (told := readable.told(record, outcome=asked.outcome))]
            if len(kept) < size:
                return found[:limit], None
            before = kept[-1].id
            if len(found) >= limit:
                break
            size = max(limit, READ_AT_ONCE)
        return found[:limit], before

    async def _ask(self, question: Callable[[Records], T]) -> T:
        records = self._kept.records
        try:
            if records is not None:
                return await asyncio.get_running_loop().run_in_executor(self._threads, question, records)
        except SQLAlchemyError as err:
            raise Unavailable("the records cannot be read now", retry_after_s=RETRY_AFTER_S) from err
        raise Unavailable("the records cannot be read yet", retry_after_s=RETRY_AFTER_S)


def _before(wanted: Filter, before: int | None, limit: int, records: Records) -> list[Record]:
    return records.before(wanted, before=before, limit=limit)


def _after(wanted: Filter, after: int, records: Records) -> tuple[list[Record], int]:
    """The first that are wanted after an id, and the id up to which these are all."""
    # Asked first: one made in between is found, or looked for the next time.
    newest = records.newest()
    found = records.after(wanted, after=after, limit=WATCHED_AT_ONCE)
    last = found[-1].id if found else after
    return found, last if len(found) == WATCHED_AT_ONCE else max(last, newest)


def record_message(record: Record) -> pb.Record:
    """A record as callers read it."""
    logged, judgement, case = record.logged, record.judgement, record.logged.case
    told = pb.Record(
        call_id=logged.call_id,
        parent=logged.parent,
        trace_id=logged.trace_id,
        phase=pb.Record.PHASE_START if case.start else pb.Record.PHASE_END,
        caller=_caller(case.caller),
        service=case.service,
        method=case.method,
        contract=case.contract,
        bundle=judgement.bundle,
        outcome=_OUTCOMES[case.outcome],
        rule=judgement.rule,
        shadow=[pb.Shadow(rule=rule, outcome=_WOULD[would]) for rule, would in judgement.shadow],
        code=case.code,
        details=case.details,
        bytes_in=logged.bytes_in,
        bytes_out=logged.bytes_out,
        provenance=logged.provenance,
        counted=record.counted,
    )
    told.time.FromMicroseconds(logged.time_us)
    if not case.start:
        told.latency.FromMilliseconds(logged.latency_ms)
    return told


def _caller(caller: Caller) -> policy_pb.Caller:
    return policy_pb.Caller(
        issuer=caller.issuer,
        subject=caller.subject,
        roles=caller.roles,
        domain=caller.domain,
        clearances=caller.clearances,
        actor=caller.actor,
    )
