"""What Suggest makes of what other tools answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from acme.engineering.v1 import doc_search_pb2
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchServicer
from acme.handbook.v1 import handbook_search_pb2
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchServicer
from acme.support.v1 import tickets_pb2 as pb
from acme.support.v1.tickets_pb2_grpc import TicketsStub
from tickets.service import TicketsService
from tickets.store import Store

from llmesh import Denied, MeshError, NotFound, ToolFailed, Unavailable, testing
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval

DOCS = f"{doc_search_pb2.DESCRIPTOR.services_by_name['DocSearch'].full_name}/Retrieve"
HANDBOOK = f"{handbook_search_pb2.DESCRIPTOR.services_by_name['HandbookSearch'].full_name}/Retrieve"
TICKET = pb.CreateTicketRequest(title="Cannot sign in", description="Ada Byron says that her password is wrong.")
FIRST = pb.SuggestRequest(id="T-1")


class Retrieving:
    """Finds passages of these scores; or fails, or never answers."""

    def __init__(self, *scores: float, failure: MeshError | None = None, hangs: bool = False) -> None:
        self._scores = scores
        self._failure = failure
        self._hangs = hangs
        self.asked: list[retrieval.RetrieveRequest] = []

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        self.asked.append(request)
        if self._failure:
            raise self._failure
        if self._hangs:
            await asyncio.Event().wait()
        found = [
            retrieval.Passage(text=f"about {score}", score=score, citation=retrieval.Citation(title=f"page {score}"))
            for score in self._scores
        ]
        return retrieval.RetrieveResponse(passages=found)


class Docs(Retrieving, DocSearchServicer):
    pass


class Handbook(Retrieving, HandbookSearchServicer):
    pass


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    store = Store(tmp_path / "tickets.db")
    yield store
    store.close()


async def suggested(store: Store, *mesh: object, request: pb.SuggestRequest = FIRST) -> pb.SuggestResponse:
    async with testing.run(TicketsService(store), mesh=mesh) as tool:
        stub = TicketsStub(tool.channel)
        await stub.CreateTicket(TICKET)
        return await stub.Suggest(request)


async def test_the_best_of_all_passages_come_first_each_with_who_found_it(store: Store) -> None:
    answer = await suggested(store, Docs(0.9, 0.2), Handbook(0.7, 0.1), request=pb.SuggestRequest(id="T-1", limit=3))

    assert [(each.passage.score, each.method) for each in answer.suggestions] == [
        (0.9, DOCS),
        (0.7, HANDBOOK),
        (0.2, DOCS),
    ]
    assert not answer.silences


async def test_a_score_that_is_no_number_is_below_all_others(store: Store) -> None:
    answer = await suggested(store, Docs(0.2, math.nan, 0.9), Handbook(math.nan, 0.7, -1))

    assert [each.passage.score for each in answer.suggestions][:3] == [0.9, 0.7, 0.2]


async def test_others_are_asked_with_the_title_alone(store: Store) -> None:
    docs, handbook = Docs(), Handbook()

    await suggested(store, docs, handbook)

    assert docs.asked == handbook.asked == [retrieval.RetrieveRequest(query="Cannot sign in", limit=5)]


async def test_one_that_fails_is_told_of_beside_the_others_passages(store: Store) -> None:
    answer = await suggested(store, Docs(failure=Denied("not for you", rule="mesh/reads")), Handbook(0.5))

    assert [each.method for each in answer.suggestions] == [HANDBOOK]
    assert list(answer.silences) == [pb.Silence(method=DOCS, code="PERMISSION_DENIED", reason="not for you")]


async def test_one_that_is_slow_is_left_out_in_time(store: Store) -> None:
    async with testing.run(TicketsService(store), mesh=(Docs(hangs=True), Handbook(0.5))) as tool:
        stub = TicketsStub(tool.channel)
        await stub.CreateTicket(TICKET)
        answer = await stub.Suggest(FIRST, timeout=5)

    assert [each.method for each in answer.suggestions] == [HANDBOOK]
    assert [(each.method, each.code) for each in answer.silences] == [(DOCS, "DEADLINE_EXCEEDED")]


async def test_where_nobody_answers_the_call_fails_and_says_why(store: Store) -> None:
    with pytest.raises(Unavailable, match=r"DocSearch/Retrieve: away now; .*HandbookSearch/Retrieve: away too"):
        await suggested(store, Docs(failure=Unavailable("away now")), Handbook(failure=Unavailable("away too")))


async def test_a_ticket_that_is_not_there_is_not_asked_about(store: Store) -> None:
    docs = Docs()
    with pytest.raises(NotFound):
        await suggested(store, docs, Handbook(), request=pb.SuggestRequest(id="T-2"))
    assert not docs.asked


async def test_what_is_given_is_cited(store: Store) -> None:
    async with testing.run(TicketsService(store), mesh=(Docs(0.9), Handbook())) as tool:
        await TicketsStub(tool.channel).CreateTicket(TICKET)
        call = TicketsStub(tool.channel).Suggest(FIRST)
        await call
        found = dict(await call.trailing_metadata() or ())

    (cited,) = json.loads(str(found["x-llmesh-provenance"]))
    assert (cited["method"], cited["title"]) == (DOCS, "page 0.9")


async def test_without_a_delegation_it_says_so(store: Store) -> None:
    with pytest.raises(ToolFailed, match="list them in its contract under `uses`"):
        await suggested(store)
