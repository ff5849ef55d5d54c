"""The decision records as callers read them: everyone their own, an auditor all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gateway.clock import Clock
from gateway.records.logged import Outcome
from gateway.records.store import TREE_MAX, Filter, Record, Records
from gateway.services.caller import current_caller
from gateway.services.paging import batches, last_of, page_token
from gateway.services.watches import Watches
from governance.ownership import PLATFORM
from governance.words import Caller
from llmesh.api.policy.v1 import facts_pb2 as policy_pb
from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceServicer as Base
from llmesh.errors import NotFound, Unavailable

_PAGE_SIZE = 100
# As often as there can be something new.
WATCH_EVERY_S = 0.2
WATCHED_AT_ONCE = 1000
RETRY_AFTER_S = 5.0
AUDITOR, OWNER = "auditor", "owner"
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

    def __init__(self, kept: Kept, *, clock: Clock) -> None:
        """Nobody watches yet."""
        self._kept = kept
        self._clock = clock
        self._watches = Watches()

    async def ListRecords(self, request: pb.ListRecordsRequest, context: object) -> pb.ListRecordsResponse:
        """A page of records, the newest first."""
        wanted, listing = _wanted(request.filter), f"records {request.filter.SerializeToString(deterministic=True)!r}"
        before = last_of(request.page_token, listing=listing)
        size = request.page_size or _PAGE_SIZE
        found = await self._ask(
            lambda records: records.before(wanted, before=int(before) if before else None, limit=size + 1)
        )
        page = next(batches(map(record_message, found[:size])), list[pb.Record]())
        more = page_token(str(found[len(page) - 1].id), listing=listing) if len(found) > len(page) else ""
        return pb.ListRecordsResponse(records=page, next_page_token=more)

    async def GetTree(self, request: pb.GetTreeRequest, context: object) -> pb.GetTreeResponse:
        """A call and all below it; NotFound if the caller may not read of it."""
        caller = current_caller()
        found = await self._ask(lambda records: records.tree(request.call_id, limit=TREE_MAX + 1))
        if not found or not _may_read(found[0], caller):
            message = f"there is no record of a call `{request.call_id}` that you may read"
            raise NotFound(message, resource=("call", request.call_id))
        readable = [record for record in found if _may_read(record, caller)]
        page = next(batches(map(record_message, readable[:TREE_MAX])), list[pb.Record]())
        return pb.GetTreeResponse(records=page, truncated=len(page) < len(readable))

    async def WatchRecords(
        self, request: pb.WatchRecordsRequest, context: object
    ) -> AsyncIterator[pb.WatchRecordsResponse]:
        """Each record that is made from now on."""
        wanted = _wanted(request.filter)
        with self._watches.one_more(current_caller()):
            last = await self._ask(lambda records: records.newest())
            yield pb.WatchRecordsResponse()
            while True:
                after = partial(_after, wanted, last)
                for found in await self._ask(after):
                    last = found.id
                    yield pb.WatchRecordsResponse(records=[record_message(found)])
                await self._clock.sleep(WATCH_EVERY_S)

    async def _ask(self, question: Callable[[Records], T]) -> T:
        records = self._kept.records
        try:
            if records is not None:
                return await asyncio.to_thread(question, records)
        except SQLAlchemyError as err:
            raise Unavailable("the records cannot be read now", retry_after_s=RETRY_AFTER_S) from err
        raise Unavailable("the records cannot be read yet", retry_after_s=RETRY_AFTER_S)


def _after(wanted: Filter, after: int, records: Records) -> list[Record]:
    return records.after(wanted, after=after, limit=WATCHED_AT_ONCE)


def _sees_all(caller: Caller) -> bool:
    """Whether the caller is an auditor. A tool that acts for one is none."""
    return not caller.actor and (AUDITOR in caller.roles or (caller.domain == PLATFORM and OWNER in caller.roles))


def _may_read(record: Record, caller: Caller) -> bool:
    made_by = record.logged.caller
    return _sees_all(caller) or (made_by.issuer, made_by.subject) == (caller.issuer, caller.subject)


def _wanted(asked: pb.RecordFilter) -> Filter:
    caller = current_caller()
    return Filter(
        own=None if _sees_all(caller) else caller,
        caller=asked.caller,
        tool=asked.tool,
        outcome=Outcome(asked.outcome) if asked.outcome else None,
        since_us=asked.since.ToMicroseconds() if asked.HasField("since") else 0,
    )


def record_message(record: Record) -> pb.Record:
    """A record as callers read it."""
    logged, judgement = record.logged, record.judgement
    told = pb.Record(
        call_id=logged.call_id,
        parent=logged.parent,
        trace_id=logged.trace_id,
        phase=pb.Record.PHASE_START if logged.start else pb.Record.PHASE_END,
        caller=_caller(logged.caller),
        service=logged.service,
        method=logged.method,
        contract=logged.contract,
        bundle=judgement.bundle,
        outcome=_OUTCOMES[logged.outcome],
        rule=judgement.rule,
        shadow=[pb.Shadow(rule=rule, outcome=_WOULD[would]) for rule, would in judgement.shadow],
        code=logged.code,
        details=logged.details,
        bytes_in=logged.bytes_in,
        bytes_out=logged.bytes_out,
        provenance=logged.provenance,
    )
    told.time.FromMicroseconds(logged.time_us)
    if not logged.start:
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
