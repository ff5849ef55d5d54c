"""The decision records' methods as plain functions; failures are MeshErrors."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc.aio

from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub

TIMEOUT_S = 30.0
PAGE_SIZE = 1000


async def list_records(channel: grpc.aio.Channel, wanted: pb.RecordFilter, *, limit: int) -> list[pb.Record]:
    """The newest so many that are wanted and the caller may read, oldest first."""
    stub = RecordServiceStub(channel)
    found: list[pb.Record] = []
    token = ""
    while len(found) < limit:
        size = min(limit - len(found), PAGE_SIZE)
        request = pb.ListRecordsRequest(filter=wanted, page_size=size, page_token=token)
        page = await stub.ListRecords(request, timeout=TIMEOUT_S)
        found += page.records
        token = page.next_page_token
        if not token:
            break
    return found[::-1]


async def watch_records(channel: grpc.aio.Channel, wanted: pb.RecordFilter, *, limit: int) -> AsyncGenerator[pb.Record]:
    """As `list_records`, then every further one, until the caller leaves."""
    watch = RecordServiceStub(channel).WatchRecords(pb.WatchRecordsRequest(filter=wanted))
    # What is made between the two is among both.
    listed: set[tuple[str, int]] = set()
    async for made in watch:
        if not made.records:
            for record in await list_records(channel, wanted, limit=limit):
                listed.add((record.call_id, record.phase))
                yield record
        for record in made.records:
            if (record.call_id, record.phase) not in listed:
                yield record


async def get_tree(channel: grpc.aio.Channel, *, call_id: str) -> pb.GetTreeResponse:
    """A call and what it caused."""
    return await RecordServiceStub(channel).GetTree(pb.GetTreeRequest(call_id=call_id), timeout=TIMEOUT_S)
