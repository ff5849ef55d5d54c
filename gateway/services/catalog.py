"""The catalog as clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.catalog import Report, Tool
from gateway.search.searcher import Searcher
from gateway.services.caller import current_caller
from gateway.services.contracts import Contracts
from gateway.services.messages import endpoint_message, tool_message
from gateway.services.paging import batches, last_of, page_token
from gateway.services.unmet import unmet
from gateway.services.visible import Seen, View
from gateway.services.watches import Told, Watches
from governance.words import Caller, Decision, Outcome
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceServicer
from llmesh.call import current_call
from llmesh.embedding import embed_query
from llmesh.errors import Denied, NotFound

_PAGE_SIZE = 100
_SEARCH_LIMIT = 10
# Looked at in one go, before others have a turn.
TOOLS_A_TURN = 50
# Sees every endpoint.
_OVERSEER = "platform"


Foreseen = Callable[[Tool, str, Caller], Decision | None]
"""What would become of a caller's call of a tool's method; None where it hangs on how the call comes."""

PromptsOf = Callable[[Tool], Awaitable[Sequence[pb.ToolPrompt]]]
"""The prompts that a tool answers by, as its endpoints say now."""

_OUTCOMES = {
    Outcome.ALLOW: pb.MayICallResponse.OUTCOME_ALLOWED,
    Outcome.DENY: pb.MayICallResponse.OUTCOME_DENIED,
}


class CatalogServicer(CatalogServiceServicer):
    """Lists, searches, describes and watches what the caller may see."""

    def __init__(
        self,
        view: View,
        contracts: Contracts,
        searcher: Searcher,
        *,
        foreseen: Foreseen,
        owner_of: Callable[[str], str | None],
        prompts_of: PromptsOf,
    ) -> None:
        """owner_of: the domain that owns a service's package; None if none does."""
        self._view = view
        self._contracts = contracts
        self._foreseen = foreseen
        self._owner_of = owner_of
        self._prompts_of = prompts_of
        self._searcher = searcher
        self._watches = Watches()

    async def ListTools(self, request: pb.ListToolsRequest, context: object) -> pb.ListToolsResponse:
        """A page of tools, in order of their names."""
        listing = f"tools of {request.domain}"
        after = last_of(request.page_token, listing=listing)
        size = request.page_size or _PAGE_SIZE
        visible = self._view.tools(current_caller(), after=after)
        wanted = (seen for seen in visible if request.domain in ("", seen.tool.domain))
        # One more than the page holds tells whether there is another.
        page = list(islice(wanted, size + 1))
        tools = next(batches(map(tool_message, page[:size])), list[pb.Tool]())
        more = page_token(tools[-1].service, listing=listing) if len(page) > len(tools) else ""
        return pb.ListToolsResponse(tools=tools, next_page_token=more)

    async def GetTool(self, request: pb.GetToolRequest, context: object) -> pb.GetToolResponse:
        """One tool; NotFound if there is none that the caller may see."""
        return pb.GetToolResponse(tool=tool_message(self._find(request.service, current_caller())))

    async def SearchTools(self, request: pb.SearchToolsRequest, context: object) -> pb.SearchToolsResponse:
        """The tools that fit best what is asked."""
        caller = current_caller()
        found = await self._searcher.search(caller, request.query, embed_query)
        if found.model:
            current_call().cite(model=found.model)
        # What has gone in the meantime, or is seen no more, is left out.
        seen = ((self._view.tool(service, caller), score) for service, score in found.hits)
        results = (pb.SearchResult(tool=tool_message(tool), score=score) for tool, score in seen if tool)
        best = islice(results, request.limit or _SEARCH_LIMIT)
        return pb.SearchToolsResponse(
            results=next(batches(best), list[pb.SearchResult]()), words_alone=found.words_alone
        )

    async def GetContract(self, request: pb.GetContractRequest, context: object) -> pb.GetContractResponse:
        """The tool's files, without services in them that the caller may not see, and what only those use."""
        caller = current_caller()
        contract = self._find(request.service, caller).tool.contract
        files = FileDescriptorSet(file=self._contracts.files(contract, caller))
        return pb.GetContractResponse(files=files, digest=contract.digest)

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: object) -> pb.ListPromptsResponse:
        """The prompts of a tool, for its own domain's callers alone: a tool that asks for one of them gets none."""
        caller = current_caller()
        tool = self._find(request.service, caller).tool
        if caller.actor or caller.domain != tool.domain or not self._is_alone(tool):
            message = f"the prompts of `{tool.service}` are shown to callers of the domain `{tool.domain}` alone"
            raise Denied(message, reason="NOT_YOUR_DOMAIN")
        return pb.ListPromptsResponse(prompts=await self._prompts_of(tool))

    def _is_alone(self, tool: Tool) -> bool:
        """Whether all that its endpoints serve, admitted or not, is its domain's: a process tells all its prompts."""
        reports = [self._view.catalog.reports.get(each.address) for each in tool.endpoints]
        return all(
            report is not None and all(self._owner_of(name) == tool.domain for name in _named(report))
            for report in reports
        )

    async def MayICall(self, request: pb.MayICallRequest, context: object) -> pb.MayICallResponse:
        """What a call would be told, without making it."""
        path = f"{request.service}/{request.method}"
        tool = self._view.catalog.tools.get(request.service)
        if tool is None or request.method not in {method.name for method in tool.methods}:
            raise _no_method(path)
        decision = self._foreseen(tool, request.method, current_caller())
        if decision is None:
            reason = "a rule asks how the call comes"
            return pb.MayICallResponse(outcome=pb.MayICallResponse.OUTCOME_MAYBE, reason=reason)
        if tool.sheet.hidden and decision.outcome is Outcome.DENY:
            raise _no_method(path)
        outcome = _OUTCOMES[decision.outcome]
        return pb.MayICallResponse(outcome=outcome, rule=decision.rule, reason=decision.reason)

    async def WatchTools(self, request: pb.WatchToolsRequest, context: object) -> AsyncIterator[pb.WatchToolsResponse]:
        """Every visible tool, then what came, changed and went for this caller."""
        caller = current_caller()
        with self._watches.one_more(caller):
            before: dict[str, Told] | None = None
            async for catalog in self._view.changes():
                now = await self._told(caller)
                known = before or {}
                changed = [told.message for name, told in now.items() if _differs(told, known.get(name))]
                removed = sorted(known.keys() - now.keys())
                if before is None or changed or removed:
                    initial = before is None
                    for part in list(batches(changed)) or [[]]:
                        yield pb.WatchToolsResponse(
                            changed=part, removed=removed, version=catalog.version, initial=initial
                        )
                        removed, initial = [], False
                before = now

    async def _told(self, caller: Caller) -> dict[str, Told]:
        """What the caller sees, by name."""
        told: dict[str, Told] = {}
        for number, seen in enumerate(self._view.tools(caller), 1):
            told[seen.tool.service] = self._watches.told(seen)
            if number % TOOLS_A_TURN == 0:
                # Others have calls to answer.
                await asyncio.sleep(0)
        return told

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: object) -> pb.ListEndpointsResponse:
        """Endpoints of the caller's domain; all of them for the role `platform`."""
        caller = current_caller()
        everything = _OVERSEER in caller.roles
        reports = sorted(self._view.catalog.reports.values(), key=lambda report: report.endpoint)
        tools = self._view.catalog.tools

        def noted(service: str) -> str:
            return unmet(tools[service], tools) if service in tools else ""

        return pb.ListEndpointsResponse(
            endpoints=[
                endpoint_message(report, tells=lambda name: everything or self._owns(caller, name), unmet=noted)
                for report in reports
                if request.address in ("", report.endpoint.address)
                and (everything or any(self._owns(caller, name) for name in _named(report)))
            ]
        )

    def _find(self, service: str, caller: Caller) -> Seen:
        seen = self._view.tool(service, caller)
        if seen is None:
            raise NotFound(f"tool `{service}` is not on the mesh", resource=("tool", service))
        return seen

    def _owns(self, caller: Caller, service: str) -> bool:
        return bool(caller.domain) and self._owner_of(service) == caller.domain


def _no_method(path: str) -> NotFound:
    return NotFound(f"method `{path}` is not on the mesh", resource=("method", path))


def _differs(told: Told, before: Told | None) -> bool:
    return told is not before and (before is None or told.message != before.message)


def _named(report: Report) -> set[str]:
    """Services that the endpoint serves, tried to serve, or is stated to serve."""
    granted = {grant.service for grant in report.endpoint.grants}
    return {*report.services, *(step.service for step in report.steps if step.service), *granted}
