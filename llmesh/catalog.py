"""The catalog's methods as plain functions; failures are MeshErrors."""

from __future__ import annotations

import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.dynamic import Contract

TIMEOUT_S = 30.0
PAGE_SIZE = 1000


async def list_tools(channel: grpc.aio.Channel, *, domain: str = "", timeout_s: float = TIMEOUT_S) -> list[pb.Tool]:
    """Every tool the caller may see, in order of names."""
    stub = CatalogServiceStub(channel)
    found: list[pb.Tool] = []
    token = ""
    while True:
        request = pb.ListToolsRequest(page_size=PAGE_SIZE, page_token=token, domain=domain)
        page = await stub.ListTools(request, timeout=timeout_s)
        found += page.tools
        token = page.next_page_token
        if not token:
            return found


async def get_tool(channel: grpc.aio.Channel, *, service: str) -> pb.Tool:
    """One tool."""
    request = pb.GetToolRequest(service=service)
    return (await CatalogServiceStub(channel).GetTool(request, timeout=TIMEOUT_S)).tool


async def search(channel: grpc.aio.Channel, *, query: str, limit: int) -> pb.SearchToolsResponse:
    """The tools found, best first, and how they were."""
    request = pb.SearchToolsRequest(query=query, limit=limit)
    return await CatalogServiceStub(channel).SearchTools(request, timeout=TIMEOUT_S)


async def may_call(channel: grpc.aio.Channel, *, service: str, method: str) -> pb.MayICallResponse:
    """What the rules would say of a call."""
    request = pb.MayICallRequest(service=service, method=method)
    return await CatalogServiceStub(channel).MayICall(request, timeout=TIMEOUT_S)


async def list_prompts(channel: grpc.aio.Channel, *, service: str) -> list[pb.ToolPrompt]:
    """The prompts that a tool of the caller's domain answers by."""
    request = pb.ListPromptsRequest(service=service)
    response = await CatalogServiceStub(channel).ListPrompts(request, timeout=TIMEOUT_S)
    return list(response.prompts)


async def list_endpoints(channel: grpc.aio.Channel, *, timeout_s: float = TIMEOUT_S) -> list[pb.Endpoint]:
    """Every endpoint the caller may ask about."""
    request = pb.ListEndpointsRequest()
    response = await CatalogServiceStub(channel).ListEndpoints(request, timeout=timeout_s)
    return list(response.endpoints)


async def get_contract(channel: grpc.aio.Channel, *, service: str) -> Contract:
    """The types of one tool."""
    request = pb.GetContractRequest(service=service)
    response = await CatalogServiceStub(channel).GetContract(request, timeout=TIMEOUT_S)
    return Contract.of(response.files)


def as_json(message: Message) -> dict[str, object]:
    """A message of the mesh's own for programs: its fields by their names, those without a value too."""
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
