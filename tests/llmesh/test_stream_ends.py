"""How a stream of answers ends that is being written just then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer

import llmesh
from llmesh import _edge, testing
from llmesh.api.calls.v1 import calls_pb2
from llmesh.api.calls.v1.calls_pb2_grpc import CallServiceStub


class Flood(EchoServicer):
    """Writes responses that are being written until somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def ServerStream(
        self, request: pb.ServerStreamRequest, context: object
    ) -> AsyncIterator[pb.ServerStreamResponse]:
        self.begun.set()
        try:
            while True:
                yield pb.ServerStreamResponse(text="a" * 8_000_000)
        finally:
            self.ended.set()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]


async def test_a_stream_whose_reader_never_reads_is_late_at_its_deadline_and_not_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with testing.run(Flood()) as tool:
        call = EchoStub(tool.raw_channel).ServerStream(pb.ServerStreamRequest(), timeout=1)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert errors(caplog) == []


async def test_a_late_stream_ends_by_its_status_though_its_reader_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_edge, "_EARLY_S", 59.5)
    monkeypatch.setattr(_edge, "_EARLY_SHARE", 1.0)
    flood = Flood()
    async with testing.run(flood) as tool:
        call = EchoStub(tool.raw_channel).ServerStream(pb.ServerStreamRequest(), timeout=60)
        await asyncio.wait_for(flood.ended.wait(), 30)
        with pytest.raises(grpc.aio.AioRpcError, match="the time that the call had is up") as late:
            async for _ in call:
                pass
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("left", [False, True], ids=["read on", "left"])
async def test_a_stream_that_is_cut_while_it_is_written_says_so_to_who_reads_on(
    caplog: pytest.LogCaptureFixture,
    left: bool,  # noqa: FBT001
) -> None:
    flood = Flood()
    cut = calls_pb2.EndCallsRequest(method="acme.testing.v1.Echo/ServerStream", message="no more", reason="BLOCKED")
    async with testing.run(flood, drain_limit_s=30) as tool:
        call = EchoStub(tool.channel).ServerStream(pb.ServerStreamRequest())
        await asyncio.wait_for(flood.begun.wait(), 30)
        assert (await CallServiceStub(tool.raw_channel).EndCalls(cut)).ended == 1
        await asyncio.wait_for(flood.ended.wait(), 30)
        if left:
            call.cancel()
        else:
            with pytest.raises(llmesh.Denied, match="no more"):
                async for _ in call:
                    pass
    assert errors(caplog) == []


class TwoAtOnce(EchoServicer):
    """Writes responses while it writes others."""

    async def ServerStream(self, request: object, context: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] the other form that gRPC allows
        await context.write(pb.ServerStreamResponse())
        response = pb.ServerStreamResponse(text="a" * 1_000_000)
        await asyncio.gather(*(context.write(response) for _ in range(20)))


async def test_two_writes_at_once_are_a_fault_of_the_tool(caplog: pytest.LogCaptureFixture) -> None:
    async with testing.run(TwoAtOnce()) as tool:
        call = EchoStub(tool.channel).ServerStream(pb.ServerStreamRequest())
        with pytest.raises(llmesh.ToolFailed, match="incident"):
            async for _ in call:
                pass
    assert errors(caplog) == ["call failed unexpectedly"]
