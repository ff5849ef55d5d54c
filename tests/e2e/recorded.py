"""Calls on a real mesh, held against what is recorded of them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any as Untyped

import grpc
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OWNER, RunningMesh

__all__ = ["AUDITOR", "Calls", "recorded"]

AUDITOR = DevCaller("audra", roles=("auditor",), domain="security")


class Calls:
    """Makes calls, and notes of each that was answered its id and when that was, by the monotonic clock."""

    def __init__(self, mesh: RunningMesh, channel: grpc.aio.Channel) -> None:
        """Nothing is called yet."""
        self._stub = EchoStub(channel)
        self._reader, self._owner = mesh.bearer(), mesh.bearer(OWNER)
        self._read: dict[str, float] = {}
        self._wrote: dict[str, float] = {}

    @property
    def reads(self) -> list[str]:
        """Ids of the calls that read, in the order of their answers."""
        return list(self._read)

    @property
    def writes(self) -> list[str]:
        """Ids of the calls that changed something."""
        return list(self._wrote)

    @property
    def expected(self) -> frozenset[tuple[str, int]]:
        """The id and the phase of every record that is to be."""
        ends = ((call_id, int(records.Record.PHASE_END)) for call_id in (*self._read, *self._wrote))
        starts = ((call_id, int(records.Record.PHASE_START)) for call_id in self._wrote)
        return frozenset((*ends, *starts))

    def answered_s(self, call_id: str) -> float:
        """When a call was answered."""
        return self._read[call_id] if call_id in self._read else self._wrote[call_id]

    async def read(self) -> None:
        """One call."""
        await self._note(self._stub.Unary(pb.UnaryRequest(text="a"), metadata=self._reader), self._read)

    async def write(self) -> None:
        """One call whose start is recorded too."""
        await self._note(self._stub.Erase(pb.EraseRequest(), metadata=self._owner), self._wrote)

    async def _note(self, call: grpc.aio.UnaryUnaryCall[Untyped, Untyped], made: dict[str, float]) -> None:
        await call
        ended_s = time.monotonic()
        found = dict(await call.initial_metadata() or ())
        made[str(found["x-llmesh-call-id"])] = ended_s


async def recorded(mesh: RunningMesh, channel: grpc.aio.Channel) -> Counter[tuple[str, int]]:
    """How many records there are of each call's start and end."""
    found: Counter[tuple[str, int]] = Counter()
    token = ""
    while True:
        asked = records.ListRecordsRequest(filter=records.RecordFilter(tool=ECHO), page_size=1000, page_token=token)
        page = await RecordServiceStub(channel).ListRecords(asked, metadata=mesh.bearer(AUDITOR), timeout=30)
        found.update((record.call_id, record.phase) for record in page.records)
        token = page.next_page_token
        if not token:
            return found
