"""Reading the decision records over a real socket: whose, and how much of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway.clock import SystemClock
from gateway.records.judgement import Judgement
from gateway.records.logged import Logged, Outcome, read_line
from gateway.records.store import Filter, Made, Record, Records
from gateway.services import records as gateway_records
from gateway.services.records import RecordServicer
from governance.words import Caller
from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.errors import Denied
from llmesh.status import error_from_rpc
from tests.eventually import eventually
from tests.gateway.records.lines import Kept, line
from tests.gateway.services.world import (
    AGENT,
    DOC_SEARCH,
    ENGINEER,
    ESCALATIONS,
    TICKET_TOOL,
    by,
    mesh,
    small_mesh,
)

if TYPE_CHECKING:
    from llmesh.api.records.v1.records_pb2_grpc import RecordServiceAsyncStub

AUDITOR = Caller(issuer="test", subject="ada", roles=("auditor",), domain="engineering")
GONE = "acme.support.v1.Gone"
# None of these may erin see, or there is none.
LIKE_NONE = (ESCALATIONS, GONE)
RULED = Judgement("bundle", "mesh/secret", (("mesh/next", "allow"),))


@dataclass(slots=True)
class Asking:
    """The service over records that the test makes."""

    records: Records
    stub: RecordServiceAsyncStub
    made: list[str] = field(default_factory=list[str])

    def make(self, service: str, outcome: Outcome, *, caller: Caller = ENGINEER, counted: int = 0, **more: str) -> str:
        """A record of a call; the call's id."""
        call_id = f"call-{len(self.made)}"
        logged, judgement = _call(call_id), RULED
        case = replace(logged.case, caller=caller, service=service, method="Escalate", outcome=outcome, **more)
        if outcome is Outcome.UNKNOWN_METHOD:
            case, judgement = replace(case, contract=""), Judgement()
        with self.records.turn() as turn:
            turn.add([Made(logged._replace(case=replace(case, rule=judgement.rule)), judgement, counted)])
        self.made.append(call_id)
        return call_id

    async def listed(
        self, caller: Caller, outcome: pb.Outcome.ValueType = pb.OUTCOME_UNSPECIFIED, size: int = 0
    ) -> list[str]:
        """Ids of the calls whose records are listed with that outcome, over all pages, newest first."""
        found, request = list[str](), pb.ListRecordsRequest(filter=pb.RecordFilter(outcome=outcome), page_size=size)
        while True:
            page = await self.stub.ListRecords(request, metadata=by(caller))
            found += [record.call_id for record in page.records]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found


def _call(call_id: str) -> Logged:
    logged = read_line(line(call_id=call_id))
    return logged._replace(case=replace(logged.case, details="words", code=12))


@asynccontextmanager
async def asking(folder: Path) -> AsyncGenerator[Asking]:
    kept = _Kept(Kept(folder).open())
    async with mesh(
        *small_mesh().values(), others=lambda view: [RecordServicer(kept, view, clock=SystemClock())]
    ) as running:
        yield Asking(kept.records, RecordServiceStub(running.services))


@dataclass(frozen=True, slots=True)
class _Kept:
    records: Records


def shown(record: pb.Record) -> tuple[object, ...]:
    """All that could tell whether there is a tool."""
    shadow = ",".join(each.rule for each in record.shadow)
    return record.outcome, record.contract, record.bundle, record.rule, shadow, record.details


LIKE_UNKNOWN = (pb.OUTCOME_UNKNOWN_METHOD, "", "", "", "", "")


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.BLOCKED])
@pytest.mark.parametrize("service", LIKE_NONE)
async def test_a_record_of_a_hidden_tool_looks_like_one_of_no_tool(
    tmp_path: Path, service: str, outcome: Outcome
) -> None:
    async with asking(tmp_path) as asked:
        watch = asked.stub.WatchRecords(pb.WatchRecordsRequest(), metadata=by(ENGINEER))
        seen = aiter(watch)
        await anext(seen)
        call_id = asked.make(service, outcome)
        watched = (await anext(seen)).records
        listed = (await asked.stub.ListRecords(pb.ListRecordsRequest(), metadata=by(ENGINEER))).records
        tree = (await asked.stub.GetTree(pb.GetTreeRequest(call_id=call_id), metadata=by(ENGINEER))).records
        audited = (await asked.stub.ListRecords(pb.ListRecordsRequest(), metadata=by(AUDITOR))).records
        watch.cancel()
    assert [shown(record) for record in (*watched, *listed, *tree)] == [LIKE_UNKNOWN] * 3
    assert [record.rule for record in audited] == ["mesh/secret"]


async def test_calls_that_are_counted_together_are_told_to_an_auditor_alone(tmp_path: Path) -> None:
    async with asking(tmp_path) as ask:
        single = ask.make(DOC_SEARCH, Outcome.DENIED)
        together = ask.make(DOC_SEARCH, Outcome.DENIED, counted=7)
        assert await ask.listed(ENGINEER) == [single]
        assert await ask.listed(AUDITOR) == [together, single]
        page = await ask.stub.ListRecords(pb.ListRecordsRequest(), metadata=by(AUDITOR))
        assert [record.counted for record in page.records] == [7, 0]


async def test_what_refused_a_call_to_a_tool_in_sight_is_told(tmp_path: Path) -> None:
    async with asking(tmp_path) as asked:
        asked.make(TICKET_TOOL, Outcome.DENIED)
        asked.make(ESCALATIONS, Outcome.DENIED, caller=AGENT)
        told = [
            (await asked.stub.ListRecords(pb.ListRecordsRequest(), metadata=by(caller))).records
            for caller in (ENGINEER, AGENT)
        ]
    assert [[record.rule for record in records] for records in told] == [["mesh/secret"]] * 2


async def test_a_filter_by_outcome_finds_no_hidden_tool(tmp_path: Path) -> None:
    async with asking(tmp_path) as asked:
        hidden = [
            asked.make(service, outcome) for outcome in (Outcome.DENIED, Outcome.BLOCKED) for service in LIKE_NONE
        ]
        unknown = asked.make(GONE, Outcome.UNKNOWN_METHOD)
        denied, allowed = asked.make(DOC_SEARCH, Outcome.DENIED), asked.make(DOC_SEARCH, Outcome.ALLOWED)
        others = asked.make(ESCALATIONS, Outcome.DENIED, caller=AGENT)

        assert await asked.listed(ENGINEER, pb.OUTCOME_DENIED, size=1) == [denied]
        assert await asked.listed(ENGINEER, pb.OUTCOME_BLOCKED, size=1) == []
        assert await asked.listed(ENGINEER, pb.OUTCOME_ALLOWED) == [allowed]
        assert await asked.listed(ENGINEER, pb.OUTCOME_UNKNOWN_METHOD, size=2) == [unknown, *reversed(hidden)]
        assert await asked.listed(AUDITOR, pb.OUTCOME_DENIED) == [others, denied, *reversed(hidden[:2])]


async def test_a_watch_for_an_outcome_tells_of_no_hidden_tool(tmp_path: Path) -> None:
    async with asking(tmp_path) as asked:
        wanted = pb.WatchRecordsRequest(filter=pb.RecordFilter(outcome=pb.OUTCOME_DENIED))
        watch = asked.stub.WatchRecords(wanted, metadata=by(ENGINEER))
        seen = aiter(watch)
        await anext(seen)
        asked.make(ESCALATIONS, Outcome.DENIED)
        denied = asked.make(DOC_SEARCH, Outcome.DENIED)
        assert [record.call_id for record in (await anext(seen)).records] == [denied]
        watch.cancel()


async def test_a_tool_that_acts_for_its_caller_reads_no_records(tmp_path: Path) -> None:
    tool = replace(ENGINEER, actor=TICKET_TOOL)
    async with asking(tmp_path) as asked:
        call_id = asked.make(DOC_SEARCH, Outcome.ALLOWED)
        asks = (
            lambda: asked.listed(tool),
            lambda: asked.stub.GetTree(pb.GetTreeRequest(call_id=call_id), metadata=by(tool)),
            lambda: anext(aiter(asked.stub.WatchRecords(pb.WatchRecordsRequest(), metadata=by(tool)))),
        )
        for ask in asks:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask()
            error = error_from_rpc(refused.value)
            assert isinstance(error, Denied)
            assert TICKET_TOOL in error.message
            assert "with their own token" in error.message


async def test_a_watch_that_finds_nothing_looks_at_no_record_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, whole = list[int](), Records.after

    def after(self: Records, wanted: Filter, *, after: int, limit: int) -> list[Record]:
        looked.append(after)
        return whole(self, wanted, after=after, limit=limit)

    monkeypatch.setattr(Records, "after", after)
    async with asking(tmp_path) as asked:
        watch = asked.stub.WatchRecords(pb.WatchRecordsRequest(), metadata=by(ENGINEER))
        seen = aiter(watch)
        await anext(seen)
        for _ in range(3):
            asked.make(DOC_SEARCH, Outcome.ALLOWED, caller=AGENT)

        async def moved_on() -> None:
            assert 3 in looked

        await eventually(moved_on)
        own = asked.make(DOC_SEARCH, Outcome.ALLOWED)
        assert [record.call_id for record in (await anext(seen)).records] == [own]
        watch.cancel()


async def test_a_page_of_which_little_is_the_callers_to_read_ends_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_records, "READ_AT_ONCE", 2)
    monkeypatch.setattr(gateway_records, "READS_AT_MOST", 3)
    async with asking(tmp_path) as made:
        first = made.make(DOC_SEARCH, Outcome.UNKNOWN_METHOD)
        for _ in range(20):
            made.make(DOC_SEARCH, Outcome.DENIED)

        request = pb.ListRecordsRequest(filter=pb.RecordFilter(outcome=pb.OUTCOME_UNKNOWN_METHOD), page_size=1)
        page = await made.stub.ListRecords(request, metadata=by(ENGINEER))

        assert not page.records
        assert page.next_page_token
        assert await made.listed(ENGINEER, pb.OUTCOME_UNKNOWN_METHOD, size=1) == [first]
