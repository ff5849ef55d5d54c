"""The blocks' methods as plain functions; failures are MeshErrors."""

from __future__ import annotations

import grpc.aio

from llmesh.api.blocks.v1 import blocks_pb2 as pb
from llmesh.api.blocks.v1.blocks_pb2_grpc import BlockServiceStub

__all__ = ["block", "list_blocks", "list_changes", "unblock"]

TIMEOUT_S = 30.0
PAGE_SIZE = 1000


async def block(channel: grpc.aio.Channel, request: pb.BlockRequest) -> pb.BlockResponse:
    """Stop the target."""
    return await BlockServiceStub(channel).Block(request, timeout=TIMEOUT_S)


async def unblock(channel: grpc.aio.Channel, request: pb.UnblockRequest) -> pb.UnblockResponse:
    """Let the target go on."""
    return await BlockServiceStub(channel).Unblock(request, timeout=TIMEOUT_S)


async def list_blocks(channel: grpc.aio.Channel) -> list[pb.Block]:
    """All that is blocked and the caller may know of."""
    stub = BlockServiceStub(channel)
    found: list[pb.Block] = []
    token = ""
    while True:
        page = await stub.ListBlocks(pb.ListBlocksRequest(page_size=PAGE_SIZE, page_token=token), timeout=TIMEOUT_S)
        found += page.blocks
        token = page.next_page_token
        if not token:
            return found


async def list_changes(channel: grpc.aio.Channel, *, limit: int) -> list[pb.Change]:
    """The newest so many changes, the newest first."""
    stub = BlockServiceStub(channel)
    found: list[pb.Change] = []
    token = ""
    while len(found) < limit:
        asked = pb.ListChangesRequest(page_size=min(PAGE_SIZE, limit - len(found)), page_token=token)
        page = await stub.ListChanges(asked, timeout=TIMEOUT_S)
        found += page.changes
        token = page.next_page_token
        if not token:
            break
    return found
