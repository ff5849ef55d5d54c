"""A mesh for the command line to meet: its own services and the echo tool, on one socket, in a process of its own.

Run as a script with the socket's path; prints a line once it serves.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from acme.testing.v1 import echo_pb2
from echo_tool.service import EchoServicer
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import llmesh
from llmesh.api.blocks.v1 import blocks_pb2
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceServicer
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceServicer
from llmesh.api.options.v1 import options_pb2 as options

Context = grpc.aio.ServicerContext[Any, Any]

ECHO = "acme.testing.v1.Echo"
ESCAPE = "acme.escape.v1.Escape"
TOOLS = [
    pb.Tool(
        service=ECHO,
        name="Echo",
        summary="Answers with what it was sent.",
        domain="testing",
        owner_team="Test Bench",
        lifecycle=options.Lifecycle(stage=options.STAGE_DEPRECATED, deprecated_from="2030-01-31", successor="acme.B"),
        slo=options.Slo(availability=0.999),
        labels={"language": "en"},
        methods=[
            pb.Method(
                name="Unary",
                summary="Answer once.",
                effect=options.EFFECT_READ,
                request_type="acme.testing.v1.UnaryRequest",
                response_type="acme.testing.v1.UnaryResponse",
                examples=[options.Example(summary="Say hello.", request_json='{"text": "it\'s"}')],
            ),
            pb.Method(name="ServerStream", effect=options.EFFECT_READ),
            pb.Method(name="Erase", effect=options.EFFECT_DESTRUCTIVE, denied=True),
        ],
        endpoint_count=2,
        ready_count=1,
    ),
    pb.Tool(service=ESCAPE, domain="escape", methods=[pb.Method(name="Out")]),
    pb.Tool(service="llmesh.api.catalog.v1.CatalogService", domain="platform"),
]
REFUSED = pb.Endpoint(
    address="127.0.0.1:50051",
    source="file",
    state=pb.Endpoint.STATE_REFUSED,
    steps=[
        pb.Step(name="connect", passed=True),
        pb.Step(name="own", service="acme.other.v1.X", reason="NOT_OWNER", message="`acme.other` is not yours"),
    ],
)
READY = pb.Endpoint(
    address="unix:/mesh/run/tools/echo-7.sock", source="lease", state=pb.Endpoint.STATE_READY, services=[ECHO]
)


class Catalog(CatalogServiceServicer):
    """Three tools, a page each; one of them has a file that leads out of any folder."""

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        tools = [tool for tool in TOOLS if request.domain in ("", tool.domain)]
        at = int(request.page_token or 0)
        more = str(at + 1) if at + 1 < len(tools) else ""
        return pb.ListToolsResponse(tools=tools[at : at + 1], next_page_token=more)

    async def GetTool(self, request: pb.GetToolRequest, context: Context) -> pb.GetToolResponse:
        return pb.GetToolResponse(tool=_tool(request.service))

    async def SearchTools(self, request: pb.SearchToolsRequest, context: Context) -> pb.SearchToolsResponse:
        found = [tool for tool in TOOLS if request.query in tool.summary][: request.limit]
        results = [pb.SearchResult(tool=tool, score=1.5) for tool in found]
        return pb.SearchToolsResponse(results=results, words_alone="the model server is [away]")

    async def GetContract(self, request: pb.GetContractRequest, context: Context) -> pb.GetContractResponse:
        if _tool(request.service).service == ESCAPE:
            outside = FileDescriptorProto(name="../outside.proto", syntax="proto3")
            return pb.GetContractResponse(files=FileDescriptorSet(file=[outside]))
        files: dict[str, FileDescriptorProto] = {}
        _collect(echo_pb2.DESCRIPTOR, files)
        return pb.GetContractResponse(files=FileDescriptorSet(file=files.values()))

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: Context) -> pb.ListPromptsResponse:
        of = _tool(request.service).service
        prompt = pb.ToolPrompt(name="greet", digest="ab" * 32, text="Greet [them].", methods=[f"{of}/Unary"])
        return pb.ListPromptsResponse(prompts=[prompt] if of == ECHO else [])

    async def MayICall(self, request: pb.MayICallRequest, context: Context) -> pb.MayICallResponse:
        allowed = request.method == "Echo"
        outcome = pb.MayICallResponse.OUTCOME_ALLOWED if allowed else pb.MayICallResponse.OUTCOME_DENIED
        return pb.MayICallResponse(outcome=outcome, rule="mesh/echo", reason="only Echo [of Echo]")

    async def WatchTools(self, request: pb.WatchToolsRequest, context: Context) -> AsyncIterator[pb.WatchToolsResponse]:
        yield pb.WatchToolsResponse(changed=TOOLS, initial=True)

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        return pb.ListEndpointsResponse(endpoints=[REFUSED, READY])


class Blocks(BlockServiceServicer):
    """Two are told a page. Who calls is not asked."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, blocks_pb2.Block] = {}
        self._changes: list[blocks_pb2.Change] = []

    async def Block(self, request: blocks_pb2.BlockRequest, context: Context) -> blocks_pb2.BlockResponse:
        if request.target.tool == "acme.X" and not request.allow_unknown:
            raise llmesh.NotFound("nothing was blocked: the mesh knows no tool `acme.X`", resource=("tool", "acme.X"))
        made = blocks_pb2.Block(id="b1", target=request.target, reason=request.reason)
        made.blocked_by.CopyFrom(blocks_pb2.Caller(issuer="dev", subject="[pia]"))
        made.block_time.FromSeconds(1_800_000_000)
        if request.HasField("until"):
            made.until.CopyFrom(request.until)
        self._blocks[request.target.SerializeToString()] = made
        self._tell(blocks_pb2.Change.ACTION_BLOCKED, made)
        deaf = ["[::1]:9000"] if request.cut else []
        return blocks_pb2.BlockResponse(block=made, in_force=not request.cut, calls_ended=3 * request.cut, not_cut=deaf)

    async def Unblock(self, request: blocks_pb2.UnblockRequest, context: Context) -> blocks_pb2.UnblockResponse:
        ended = self._blocks.pop(request.target.SerializeToString(), None)
        if ended:
            self._tell(blocks_pb2.Change.ACTION_UNBLOCKED, ended, request.reason)
        return blocks_pb2.UnblockResponse(block=ended, in_force=True)

    def _tell(self, action: blocks_pb2.Change.Action.ValueType, block: blocks_pb2.Block, reason: str = "") -> None:
        change = blocks_pb2.Change(action=action, block=block, reason=reason, changed_by=block.blocked_by)
        change.change_time.FromSeconds(1_800_000_000 + len(self._changes))
        self._changes.insert(0, change)

    async def ListBlocks(
        self, request: blocks_pb2.ListBlocksRequest, context: Context
    ) -> blocks_pb2.ListBlocksResponse:
        at, blocks = int(request.page_token or 0), list(self._blocks.values())
        more = str(at + 2) if at + 2 < len(blocks) else ""
        return blocks_pb2.ListBlocksResponse(blocks=blocks[at : at + 2], next_page_token=more)

    async def ListChanges(
        self, request: blocks_pb2.ListChangesRequest, context: Context
    ) -> blocks_pb2.ListChangesResponse:
        at = int(request.page_token or 0)
        end = at + min(2, request.page_size)
        more = str(end) if end < len(self._changes) else ""
        return blocks_pb2.ListChangesResponse(changes=self._changes[at:end], next_page_token=more)


class Echo(EchoServicer):
    """Lets nobody erase."""

    async def Erase(self, request: echo_pb2.EraseRequest, context: Context) -> echo_pb2.EraseResponse:
        await context.send_initial_metadata((("x-llmesh-call-id", "call-7"),))
        raise llmesh.Denied("only owners erase", rule="mesh/destructive", reason="NO_RULE_PERMITS")

    async def Unary(self, request: echo_pb2.UnaryRequest, context: Context) -> echo_pb2.UnaryResponse:
        if request.text == "blocked":
            raise llmesh.Denied("the tool is blocked: it leaks", reason="BLOCKED")
        if request.text == "undelegated":
            raise llmesh.Denied("acme.A may not call acme.B for its caller", reason="NOT_DELEGATED")
        if request.text.startswith("header "):
            sent = {key: str(value) for key, value in context.invocation_metadata() or ()}
            return echo_pb2.UnaryResponse(text=sent.get(request.text.removeprefix("header "), "none"))
        return await super().Unary(request, context)


def _tool(service: str) -> pb.Tool:
    for tool in TOOLS:
        if tool.service == service:
            return tool
    raise llmesh.NotFound(f"tool `{service}` is not on the mesh", resource=("tool", service))


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    for imported in file.dependencies:
        _collect(imported, files)
    if file.name not in files:
        file.CopyToProto(found := FileDescriptorProto())
        files[file.name] = found


async def serve(path: str) -> None:
    async with llmesh.Server(Catalog(), Blocks(), Echo(), address=f"unix:{path}"):
        print("serving", flush=True)  # noqa: T201 what the test waits for
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
