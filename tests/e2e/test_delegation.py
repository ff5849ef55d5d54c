"""A tool that calls others for its caller, on a whole mesh: the tickets tool asks the handbook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest

import llmesh
from llmesh.identity import DevCaller
from tests.e2e.mesh import RunningMesh, running_mesh
from tests.eventually import eventually
from tests.pki import Authority

if TYPE_CHECKING:
    from acme.support.v1 import tickets_pb2

TICKETS, HANDBOOK, DOCS = (
    "acme.support.v1.Tickets",
    "acme.handbook.v1.HandbookSearch",
    "acme.engineering.v1.DocSearch",
)
HOST = "mesh.acme.example"
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


async def test_a_tool_finds_the_mesh_of_its_directory_over_tls_too() -> None:
    from acme.support.v1 import tickets_pb2
    from acme.support.v1.tickets_pb2_grpc import TicketsStub

    authority = Authority()
    with running_mesh(start=False) as running:
        certificate, key = authority.issue(HOST).write(running.folder, "port")
        running.settings = {"tls": {"certificate": str(certificate), "key": str(key)}}
        running.write_file()
        running.start_gateway()
        running.start_envoy()
        for path in ("support/tickets", "handbook/search"):
            running.start_tool(path)
        token = running.token(EDITOR)
        trusted = llmesh.Mesh(running.address, token, root_certificates=authority.pem, server_name=HOST)
        async with trusted as client:
            stub = TicketsStub(client.channel)

            async def answered() -> tickets_pb2.SuggestResponse:
                try:
                    made = await stub.CreateTicket(tickets_pb2.CreateTicketRequest(title="How to publish a tool"))
                    return await stub.Suggest(tickets_pb2.SuggestRequest(id=made.ticket.id))
                except llmesh.MeshError as err:
                    raise AssertionError(running.said()) from err

            answer = await eventually(answered, within_s=60)

    assert {each.method for each in answer.suggestions} == {f"{HANDBOOK}/Retrieve"}
