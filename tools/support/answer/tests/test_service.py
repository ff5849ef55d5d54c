"""What AnswerTicket makes of what other tools answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator

import pytest
from acme.engineering.v1.doc_search_pb2 import DESCRIPTOR as DOCS_FILE
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchServicer
from acme.engineering.v1.package_search_pb2 import DESCRIPTOR as PACKAGES_FILE
from acme.engineering.v1.package_search_pb2_grpc import PackageSearchServicer
from acme.handbook.v1.handbook_search_pb2 import DESCRIPTOR as HANDBOOK_FILE
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchServicer
from acme.support.v1 import answer_pb2 as pb
from acme.support.v1 import tickets_pb2
from acme.support.v1.answer_pb2_grpc import AnswersStub
from acme.support.v1.tickets_pb2_grpc import TicketsServicer
from answer.reply import PROMPT
from answer.service import AnswersService
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc.status_pb2 import Status

import llmesh
from llmesh import Denied, InvalidCall, NotFound, ToolFailed, Unavailable, testing
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceServicer
from llmesh.api.mesh.v1 import mesh_pb2
from llmesh.api.mesh.v1.mesh_pb2_grpc import MeshServiceServicer
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval
from llmesh.api.retrieval.v1.retrieval_pb2 import RetrieveRequest

DOCS = DOCS_FILE.services_by_name["DocSearch"].full_name
PACKAGES = PACKAGES_FILE.services_by_name["PackageSearch"].full_name
HANDBOOK = HANDBOOK_FILE.services_by_name["HandbookSearch"].full_name
SERVICE = pb.DESCRIPTOR.services_by_name["Answers"]
ANSWER = SERVICE.methods_by_name["AnswerTicket"]
SIGN_IN = pb.AnswerTicketRequest(text="Cannot sign in")


class Retrieving:
    """Finds passages of these texts and scores; or fails, or never answers."""

    def __init__(self, *found: tuple[str, float], failure: Exception | None = None, hangs: bool = False) -> None:
        self._found = found
        self._failure = failure
        self._hangs = hangs
        self.asked: list[retrieval.RetrieveRequest] = []

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        self.asked.append(request)
        if self._failure:
            raise self._failure
        if self._hangs:
            await asyncio.Event().wait()
        return retrieval.RetrieveResponse(
            passages=[
                retrieval.Passage(text=text, score=score, citation=retrieval.Citation(title=f"page of {text}"))
                for text, score in self._found
            ]
        )


class EndsLate(MeshServiceServicer):
    """Fans out, and has no time left to tell more than the first answer."""

    async def FanOut(self, request: mesh_pb2.FanOutRequest, context: object) -> AsyncIterator[mesh_pb2.FanOutResponse]:
        branch = mesh_pb2.Branch(tool=DOCS, method="Retrieve", status=Status())
        branch.responses.add().Pack(retrieval.RetrieveResponse(passages=[retrieval.Passage(text="a", score=0.5)]))
        yield mesh_pb2.FanOutResponse(branches=[branch])
        raise llmesh.DeadlineExceeded("its time is up")


class Docs(Retrieving, DocSearchServicer):
    pass


class Packages(Retrieving, PackageSearchServicer):
    pass


class Handbook(Retrieving, HandbookSearchServicer):
    pass


class Tickets(TicketsServicer):
    """Has one ticket, of this title. Of the other methods, none is called."""

    def __init__(self, title: str, *, failure: Exception | None) -> None:
        self._title = title
        self._failure = failure

    async def GetTicket(self, request: tickets_pb2.GetTicketRequest, context: object) -> tickets_pb2.GetTicketResponse:
        if self._failure:
            raise self._failure
        if request.id != "T-1":
            raise llmesh.NotFound(f"there is no ticket `{request.id}`", resource=("ticket", request.id))
        ticket = tickets_pb2.Ticket(id="T-1", title=self._title, description="Ada Byron says: my password is tea.")
        return tickets_pb2.GetTicketResponse(ticket=ticket)


class Catalog(CatalogServiceServicer):
    """Has the contract of the ticket store."""

    async def GetContract(
        self, request: catalog_pb2.GetContractRequest, context: object
    ) -> catalog_pb2.GetContractResponse:
        files: dict[str, FileDescriptorProto] = {}
        _collect(tickets_pb2.DESCRIPTOR, files)
        return catalog_pb2.GetContractResponse(files=FileDescriptorSet(file=files.values()))


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    for imported in file.dependencies:
        _collect(imported, files)
    file.CopyToProto(found := FileDescriptorProto())
    files.setdefault(file.name, found)


def ticket(title: str = "Cannot sign in", *, failure: Exception | None = None) -> TicketsServicer:
    return Tickets(title, failure=failure)  # pyright: ignore[reportAbstractUsage] no other method is called


CATALOG = Catalog()  # pyright: ignore[reportAbstractUsage] no other method is called


async def answered(*mesh: object, request: pb.AnswerTicketRequest = SIGN_IN) -> pb.AnswerTicketResponse:
    async with testing.run(AnswersService(), mesh=mesh) as tool:
        return await AnswersStub(tool.channel).AnswerTicket(request, timeout=30)


def found(answer: pb.AnswerTicketResponse) -> list[tuple[str, str]]:
    return [(each.passage.text, each.tool) for each in answer.sources]


async def test_the_best_of_all_passages_come_first_each_with_who_found_it() -> None:
    mesh = Docs(("a", 0.9), ("b", 0.2)), Packages(("c", 0.5)), Handbook(("d", 0.7))

    answer = await answered(*mesh, request=pb.AnswerTicketRequest(text="x", limit=3))

    assert found(answer) == [("a", DOCS), ("d", HANDBOOK), ("c", PACKAGES)]
    assert not answer.unanswered
    assert answer.sources[0].passage.citation.title == "page of a"


async def test_a_text_that_several_found_is_there_once() -> None:
    answer = await answered(Docs(("same", 0.4)), Packages(("other", 0.4)), Handbook(("same", 0.8)))

    assert found(answer) == [("same", HANDBOOK), ("other", PACKAGES)]


@pytest.mark.parametrize("score", [math.nan, -math.inf, -1.0])
async def test_score_that_is_none_puts_nothing_first(score: float) -> None:
    answer = await answered(Docs(("odd", score)), Packages(), Handbook(("good", 0.1)))

    assert found(answer) == [("good", HANDBOOK), ("odd", DOCS)]


async def test_all_are_asked_the_question() -> None:
    mesh = Docs(), Packages(), Handbook()

    await answered(*mesh)

    for each in mesh:
        assert each.asked == [RetrieveRequest(query="Cannot sign in", limit=5)]


async def test_of_a_ticket_others_are_asked_with_the_title_alone() -> None:
    docs = Docs(("a", 0.5))

    answer = await answered(docs, Packages(), Handbook(), ticket(), CATALOG, request=pb.AnswerTicketRequest(id="T-1"))

    assert found(answer) == [("a", DOCS)]
    assert [each.query for each in docs.asked] == ["Cannot sign in"]


FAILURES = [
    (ticket(), "T-2", NotFound),
    (ticket(failure=Denied("tickets hold personal data")), "T-1", Denied),
    (ticket(failure=Unavailable("away")), "T-1", Unavailable),
    (ticket(" "), "T-1", ToolFailed),
]


@pytest.mark.parametrize(("tickets", "id_", "kind"), FAILURES, ids=["no ticket", "denied", "away", "no title"])
async def test_ticket_that_cannot_be_read_is_not_asked_about(
    tickets: TicketsServicer, id_: str, kind: type[Exception]
) -> None:
    docs = Docs()
    with pytest.raises(kind):
        await answered(docs, tickets, CATALOG, request=pb.AnswerTicketRequest(id=id_))

    assert not docs.asked


async def test_one_that_fails_is_told_of_beside_the_others_passages() -> None:
    answer = await answered(Docs(failure=Denied("not for you", rule="mesh/reads")), Packages(), Handbook(("a", 0.5)))

    assert found(answer) == [("a", HANDBOOK)]
    assert list(answer.unanswered) == [
        pb.Unanswered(method=f"{DOCS}/Retrieve", code="PERMISSION_DENIED", reason="not for you")
    ]


async def test_one_that_is_not_there_is_told_of() -> None:
    answer = await answered(Docs(("a", 0.5)))

    assert [(each.method, each.code) for each in answer.unanswered] == [
        (f"{PACKAGES}/Retrieve", "NOT_FOUND"),
        (f"{HANDBOOK}/Retrieve", "NOT_FOUND"),
    ]


async def test_one_that_is_slow_is_left_out_in_time() -> None:
    async with testing.run(AnswersService(), mesh=(Docs(hangs=True), Packages(), Handbook(("a", 0.5)))) as tool:
        answer = await AnswersStub(tool.channel).AnswerTicket(SIGN_IN, timeout=5)

    assert found(answer) == [("a", HANDBOOK)]
    assert [(each.method, each.code) for each in answer.unanswered] == [(f"{DOCS}/Retrieve", "DEADLINE_EXCEEDED")]


async def test_what_came_before_the_fan_outs_time_was_up_is_given_all_the_same() -> None:
    answer = await answered(EndsLate())

    assert found(answer) == [("a", DOCS)]
    assert [(each.method, each.code) for each in answer.unanswered] == [
        (f"{PACKAGES}/Retrieve", "DEADLINE_EXCEEDED"),
        (f"{HANDBOOK}/Retrieve", "DEADLINE_EXCEEDED"),
    ]


async def test_where_nobody_answers_the_call_fails_and_says_why() -> None:
    mesh = Docs(failure=Unavailable("away now")), Packages(failure=ValueError("secret")), Handbook(failure=Denied("no"))

    with pytest.raises(Unavailable, match=r"DocSearch/Retrieve: away now; .*HandbookSearch/Retrieve: no") as caught:
        await answered(*mesh)

    assert "secret" not in caught.value.message


async def test_where_nobody_is_there_the_call_fails_and_says_why() -> None:
    with pytest.raises(Unavailable, match="nobody can be asked"):
        await answered(ticket())


async def test_where_nothing_bears_on_the_ticket_there_is_nothing() -> None:
    assert await answered(Docs(), Packages(), Handbook()) == pb.AnswerTicketResponse(reply=pb.Reply(found=False))


REFUSED = [
    (pb.AnswerTicketRequest(), "ticket"),
    (pb.AnswerTicketRequest(text=" \n"), "text"),
    (pb.AnswerTicketRequest(text="x" * 4097), "text"),
    (pb.AnswerTicketRequest(id="T-0"), "id"),
    (pb.AnswerTicketRequest(id="T-1/../x"), "id"),
    (pb.AnswerTicketRequest(text="x", limit=101), "limit"),
]


@pytest.mark.parametrize(("request_", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_request_outside_its_contract_is_refused(request_: pb.AnswerTicketRequest, field: str) -> None:
    docs = Docs()
    with pytest.raises(InvalidCall) as caught:
        await answered(docs, request=request_)

    assert [violation.field for violation in caught.value.violations] == [field]
    assert not docs.asked


async def test_what_is_given_is_cited() -> None:
    async with testing.run(AnswersService(), mesh=(Docs(("a", 0.9)), Packages(), Handbook())) as tool:
        call = AnswersStub(tool.channel).AnswerTicket(SIGN_IN, timeout=30)
        await call
        trailers = dict(await call.trailing_metadata() or ())

    # No model was there to read the prompt.
    (cited,) = json.loads(str(trailers["x-llmesh-provenance"]))
    assert (cited["tool"], cited["title"]) == (DOCS, "page of a")


async def test_without_a_delegation_it_says_so() -> None:
    with pytest.raises(ToolFailed, match="list them in its contract under `uses`"):
        await answered()


def test_contract_is_a_whole_product_sheet() -> None:
    sheet = SERVICE.GetOptions().Extensions[options.tool]
    method = ANSWER.GetOptions().Extensions[options.method]

    empty = {field.name for field in sheet.DESCRIPTOR.fields} - {field.name for field, _ in sheet.ListFields()}
    assert empty == {"hidden"}
    assert list(sheet.prompts) == [PROMPT.name]
    assert method.effect == options.EFFECT_READ
    assert ANSWER.GetOptions().idempotency_level == ANSWER.GetOptions().NO_SIDE_EFFECTS
