"""A tool that calls others for its caller, on a whole mesh: the tickets tool asks the handbook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest

from llmesh.identity import DevCaller
from tests.e2e.mesh import RunningMesh, running_mesh

if TYPE_CHECKING:
    from acme.support.v1 import tickets_pb2

TICKETS, HANDBOOK, DOCS = (
    "acme.support.v1.Tickets",
    "acme.handbook.v1.HandbookSearch",
    "acme.engineering.v1.DocSearch",
)
EDITOR = DevCaller("eve", roles=("editor",), domain="support")


@pytest.fixture(scope="module")
def mesh() -> Iterator[RunningMesh]:
    with running_mesh() as running:
        for path in ("support/tickets", "handbook/search"):
            running.start_tool(path)
        running.wait_ready(TICKETS, HANDBOOK)
        yield running


def suggested(mesh: RunningMesh, *, title: str, caller: DevCaller) -> tickets_pb2.SuggestResponse:
    from acme.support.v1 import tickets_pb2
    from acme.support.v1.tickets_pb2_grpc import TicketsStub

    with grpc.insecure_channel(mesh.address) as channel:
        stub = TicketsStub(channel)
        made = stub.CreateTicket(tickets_pb2.CreateTicketRequest(title=title), metadata=mesh.bearer(EDITOR), timeout=10)
        asked = tickets_pb2.SuggestRequest(id=made.ticket.id)
        return stub.Suggest(asked, metadata=mesh.bearer(caller), timeout=10)


def test_a_tool_answers_with_what_others_know(mesh: RunningMesh) -> None:
    answer = suggested(mesh, title="How to publish a tool", caller=EDITOR)

    assert answer.suggestions
    assert {each.method for each in answer.suggestions} == {f"{HANDBOOK}/Retrieve"}
    assert all(each.passage.citation.digest for each in answer.suggestions)
    # It does not run here.
    assert [(each.method, each.code) for each in answer.silences] == [(f"{DOCS}/Retrieve", "PERMISSION_DENIED")]
