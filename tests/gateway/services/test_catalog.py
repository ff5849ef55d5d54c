"""The catalog over a real socket, as two people see it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.catalog import Endpoint, Grant, Report, State, Step, Tool
from governance.words import Caller
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.options.v1 import options_pb2
from llmesh.errors import InvalidCall
from llmesh.status import error_from_rpc
from tests.gateway.services.world import (
    AGENT,
    DOC_SEARCH,
    ENGINEER,
    ESCALATIONS,
    NOBODY,
    OVERSEER,
    TICKET_TOOL,
    Mesh,
    by,
    mesh,
    small_mesh,
)

if TYPE_CHECKING:
    from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub

PLATFORM = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "llmesh.api.blocks.v1.BlockService",
    "llmesh.api.catalog.v1.CatalogService",
    "llmesh.api.mesh.v1.MeshService",
    "llmesh.api.records.v1.RecordService",
]


def catalog_of(running: Mesh) -> CatalogServiceAsyncStub:
    return CatalogServiceStub(running.services)


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        pytest.param(ENGINEER, [DOC_SEARCH, TICKET_TOOL, *PLATFORM], id="engineer"),
        pytest.param(AGENT, [ESCALATIONS, TICKET_TOOL, *PLATFORM], id="agent"),
        pytest.param(NOBODY, [], id="nobody"),
    ],
)
async def test_callers_see_only_what_they_could_be_permitted(caller: Caller, expected: list[str]) -> None:
    async with mesh(*small_mesh().values()) as running:
        listed = await catalog_of(running).ListTools(pb.ListToolsRequest(), metadata=by(caller))
    assert [tool.service for tool in listed.tools] == expected


async def test_tool_is_described_in_full_with_denied_methods_marked() -> None:
    async with mesh(*small_mesh().values()) as running:
        request = pb.GetToolRequest(service=TICKET_TOOL)
        tool = (await catalog_of(running).GetTool(request, metadata=by(ENGINEER))).tool
    assert (tool.name, tool.domain, dict(tool.labels)) == ("Tickets", "support", {"language": "en"})
    assert (tool.endpoint_count, tool.ready_count, tool.unprotected_transport) == (1, 1, False)
    assert [(method.name, method.denied, method.effect) for method in tool.methods] == [
        ("GetTicket", False, 1),
        ("DeleteTicket", True, 3),
    ]
    assert tool.methods[0].deadline.seconds == 30


async def test_tool_that_is_not_seen_answers_like_one_that_is_not_there() -> None:
    async with mesh(*small_mesh().values()) as running:
        refusals: list[str] = []
        for name in (ESCALATIONS, "acme.support.v1.Escalationz"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await catalog_of(running).GetTool(pb.GetToolRequest(service=name), metadata=by(ENGINEER))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            refusals.append((caught.value.details() or "").replace(name, "NAME"))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    ("caller", "service", "method", "told"),
    [
        pytest.param(AGENT, TICKET_TOOL, "DeleteTicket", ("ALLOWED", "mesh/table", "the table says so"), id="allowed"),
        pytest.param(ENGINEER, TICKET_TOOL, "DeleteTicket", ("DENIED", "", "no rule permits"), id="denied"),
        pytest.param(AGENT, DOC_SEARCH, "Find", ("DENIED", "", "no rule permits"), id="of a tool that is not listed"),
        pytest.param(AGENT, ESCALATIONS, "Escalate", ("ALLOWED", "mesh/table", "the table says so"), id="hidden"),
        pytest.param(OVERSEER, TICKET_TOOL, "GetTicket", ("MAYBE", "", "a rule asks how the call comes"), id="maybe"),
    ],
)
async def test_a_caller_is_told_what_would_become_of_a_call(
    caller: Caller, service: str, method: str, told: tuple[str, str, str]
) -> None:
    async with mesh(*small_mesh().values()) as running:
        request = pb.MayICallRequest(service=service, method=method)
        answer = await catalog_of(running).MayICall(request, metadata=by(caller))
    outcome = pb.MayICallResponse.Outcome.Name(answer.outcome).removeprefix("OUTCOME_")
    assert (outcome, answer.rule, answer.reason) == told


async def test_a_hidden_method_one_may_not_call_answers_like_one_that_is_not_there() -> None:
    async with mesh(*small_mesh().values()) as running:
        refusals = set[str]()
        for service, method in ((ESCALATIONS, "Escalate"), (ESCALATIONS, "Descend"), ("acme.x.v1.Y", "Z")):
            request = pb.MayICallRequest(service=service, method=method)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await catalog_of(running).MayICall(request, metadata=by(ENGINEER))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            refusals.add((caught.value.details() or "").replace(f"{service}/{method}", "NAME"))
    assert len(refusals) == 1


async def test_pages_hold_each_tool_once() -> None:
    tools = _many(25)
    async with mesh(*tools) as running:
        found, token = list[str](), ""
        for size in (10, 10, 5):
            request = pb.ListToolsRequest(page_size=10, page_token=token, domain="support")
            page = await catalog_of(running).ListTools(request, metadata=by(AGENT))
            assert len(page.tools) == size
            found += [tool.service for tool in page.tools]
            token = page.next_page_token
    assert token == ""
    assert found == sorted(tool.service for tool in tools)


async def test_page_goes_on_where_it_was_when_tools_come_and_go() -> None:
    tools = _many(4)
    async with mesh(*tools) as running:
        request = pb.ListToolsRequest(page_size=2, domain="support")
        first = await catalog_of(running).ListTools(request, metadata=by(AGENT))
        # The last one listed goes, so the token names a tool that is no more.
        await running.post(tools[0], *tools[2:])
        request.page_token = first.next_page_token
        second = await catalog_of(running).ListTools(request, metadata=by(AGENT))
    assert [tool.service for tool in second.tools] == [tool.service for tool in tools[2:]]


async def test_token_of_another_listing_is_refused_with_the_field() -> None:
    async with mesh(*_many(3)) as running:
        request = pb.ListToolsRequest(page_size=1, domain="support")
        page = await catalog_of(running).ListTools(request, metadata=by(AGENT))
        other = pb.ListToolsRequest(page_token=page.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await catalog_of(running).ListTools(other, metadata=by(AGENT))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert _violated(caught.value) == ["page_token"]


async def test_page_size_beyond_the_limit_is_refused_with_the_field() -> None:
    async with mesh() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await catalog_of(running).ListTools(pb.ListToolsRequest(page_size=1001), metadata=by(AGENT))
    assert _violated(caught.value) == ["page_size"]


async def test_search_finds_only_what_the_caller_sees() -> None:
    async with mesh(*small_mesh().values()) as running:
        found: list[list[str]] = []
        for caller in (AGENT, ENGINEER):
            request = pb.SearchToolsRequest(query="escalations of tickets", limit=5)
            response = await catalog_of(running).SearchTools(request, metadata=by(caller))
            assert all(result.score > 0 for result in response.results)
            assert response.words_alone == "no model server is on the mesh"
            found.append([result.tool.service for result in response.results])
    assert found == [[ESCALATIONS, TICKET_TOOL], [TICKET_TOOL]]


async def test_search_leaves_out_the_services_of_the_mesh_itself() -> None:
    async with mesh(*small_mesh().values()) as running:
        request = pb.SearchToolsRequest(query="catalog health reflection")
        response = await catalog_of(running).SearchTools(request, metadata=by(OVERSEER))
    assert list(response.results) == []


async def test_contract_holds_each_file_after_its_imports() -> None:
    async with mesh(*small_mesh().values()) as running:
        request = pb.GetContractRequest(service=TICKET_TOOL)
        contract = await catalog_of(running).GetContract(request, metadata=by(AGENT))
    met = set[str]()
    for file in contract.files.file:
        assert met.issuperset(file.dependency)
        met.add(file.name)
    assert tuple(contract.files.file) == small_mesh()[TICKET_TOOL].contract.files
    assert contract.digest == small_mesh()[TICKET_TOOL].contract.digest


async def test_contract_does_not_tell_of_a_service_that_is_not_seen() -> None:
    async with mesh(*small_mesh().values()) as running:
        request = pb.GetContractRequest(service=TICKET_TOOL)
        contract = await catalog_of(running).GetContract(request, metadata=by(ENGINEER))
    assert _services(contract.files) == ["Tickets"]


async def test_watch_tells_what_came_changed_and_went() -> None:
    tools = small_mesh()
    async with mesh(tools[DOC_SEARCH]) as running:
        watching = catalog_of(running).WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))
        stream = aiter(watching)
        first = await anext(stream)
        assert first.initial
        assert [tool.service for tool in first.changed] == [DOC_SEARCH, *PLATFORM]
        await running.post(tools[DOC_SEARCH], tools[TICKET_TOOL])
        came = await anext(stream)
        assert ([tool.service for tool in came.changed], list(came.removed)) == ([TICKET_TOOL], [])
        assert came.version > first.version
        assert not came.initial
        await running.post(tools[TICKET_TOOL], replace(tools[DOC_SEARCH], ready=frozenset()))
        changed = await anext(stream)
        assert [(tool.service, tool.ready_count) for tool in changed.changed] == [(DOC_SEARCH, 0)]
        await running.post(tools[DOC_SEARCH])
        went = await anext(stream)
        assert list(went.removed) == [TICKET_TOOL]
        watching.cancel()


async def test_no_answer_is_larger_than_clients_receive_however_large_the_tools_are() -> None:
    tools = _large(80)
    names = [tool.service for tool in tools]
    async with mesh(*tools) as running:
        catalog, token, found = catalog_of(running), "", list[str]()
        while token or not found:
            request = pb.ListToolsRequest(page_size=1000, page_token=token, domain="support")
            page = await catalog.ListTools(request, metadata=by(AGENT))
            assert page.tools
            found += [tool.service for tool in page.tools]
            token = page.next_page_token
        assert found == names
        results = await catalog.SearchTools(pb.SearchToolsRequest(query="tickets", limit=100), metadata=by(AGENT))
        assert results.results
        watching = catalog.WatchTools(pb.WatchToolsRequest(), metadata=by(AGENT))
        stream, told = aiter(watching), list[pb.WatchToolsResponse]()
        while names[-1] not in [tool.service for each in told for tool in each.changed]:
            told.append(await anext(stream))
        watching.cancel()
    assert [each.initial for each in told] == [True] + [False] * (len(told) - 1)
    assert {each.version for each in told} == {told[0].version}
    assert set(names) < {tool.service for each in told for tool in each.changed}


async def test_watch_says_nothing_of_tools_that_are_not_seen() -> None:
    tools = small_mesh()
    async with mesh(tools[DOC_SEARCH]) as running:
        watching = catalog_of(running).WatchTools(pb.WatchToolsRequest(), metadata=by(ENGINEER))
        stream = aiter(watching)
        await anext(stream)
        await running.post(tools[DOC_SEARCH], tools[ESCALATIONS])
        await running.post(tools[DOC_SEARCH])
        await running.post(tools[TICKET_TOOL])
        said = await anext(stream)
        assert ([tool.service for tool in said.changed], list(said.removed)) == ([TICKET_TOOL], [DOC_SEARCH])
        watching.cancel()


REPORTS = [
    Report(Endpoint("10.0.0.1:50051", "file"), State.PENDING),
    Report(
        Endpoint("unix:/run/docs.sock", "lease"),
        State.READY,
        (Step("connect", passed=True), Step("own", passed=True, service=DOC_SEARCH)),
        (DOC_SEARCH,),
        1700000000.5,
    ),
    Report(
        Endpoint("unix:/run/mixed.sock", "lease"),
        State.REFUSED,
        (
            Step("connect", passed=True),
            Step("own", passed=False, service=TICKET_TOOL, reason="NOT_THE_OWNER", message="ask"),
            Step("own", passed=False, service=DOC_SEARCH, reason="CONFLICT", message="taken"),
        ),
    ),
    Report(Endpoint("10.0.0.2:50051", "file", (Grant("acme.support.v1.Old", "support", "agents"),)), State.PENDING),
]


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        pytest.param(
            OVERSEER, ["10.0.0.1:50051", "10.0.0.2:50051", "unix:/run/docs.sock", "unix:/run/mixed.sock"], id="platform"
        ),
        pytest.param(ENGINEER, ["unix:/run/docs.sock", "unix:/run/mixed.sock"], id="engineer"),
        pytest.param(AGENT, ["10.0.0.2:50051", "unix:/run/mixed.sock"], id="agent"),
        pytest.param(NOBODY, [], id="nobody"),
    ],
)
async def test_endpoints_are_told_to_the_owners_of_what_they_serve(caller: Caller, expected: list[str]) -> None:
    async with mesh(reports=REPORTS) as running:
        response = await catalog_of(running).ListEndpoints(pb.ListEndpointsRequest(), metadata=by(caller))
    assert [endpoint.address for endpoint in response.endpoints] == expected


async def test_owner_sees_why_a_tool_was_refused_and_no_step_of_another_domain() -> None:
    async with mesh(reports=REPORTS) as running:
        request = pb.ListEndpointsRequest(address="unix:/run/mixed.sock")
        response = await catalog_of(running).ListEndpoints(request, metadata=by(AGENT))
    [endpoint] = response.endpoints
    assert endpoint.state == pb.Endpoint.STATE_REFUSED
    assert [(step.name, step.service, step.reason) for step in endpoint.steps] == [
        ("connect", "", ""),
        ("own", TICKET_TOOL, "NOT_THE_OWNER"),
    ]


async def test_endpoint_tells_its_services_and_when_it_changed() -> None:
    async with mesh(reports=REPORTS) as running:
        request = pb.ListEndpointsRequest(address="unix:/run/docs.sock")
        response = await catalog_of(running).ListEndpoints(request, metadata=by(ENGINEER))
    [endpoint] = response.endpoints
    assert (endpoint.source, list(endpoint.services)) == ("lease", [DOC_SEARCH])
    assert endpoint.change_time.ToMilliseconds() == 1700000000500


def _many(count: int) -> list[Tool]:
    tool = small_mesh()[TICKET_TOOL]
    return [replace(tool, service=f"acme.open.v1.Tool{number:02}") for number in range(count)]


def _large(count: int) -> list[Tool]:
    sheet = options_pb2.Tool(name="Tickets", summary="x" * 64_000, domain="support")
    return [replace(tool, sheet=sheet) for tool in _many(count)]


def _services(files: FileDescriptorSet) -> list[str]:
    return [service.name for file in files.file for service in file.service]


def _violated(err: grpc.aio.AioRpcError) -> list[str]:
    told = error_from_rpc(err)
    assert isinstance(told, InvalidCall)
    return [violation.field for violation in told.violations]
