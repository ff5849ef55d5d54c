"""Calls that take long, and streams that are silent for long, are not cut."""

from __future__ import annotations

import asyncio

from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from llmesh._client import open_channel
from tests.e2e.mesh import RunningMesh

SILENT_S = 65


async def test_a_slow_answer_and_a_silent_stream_come_whole(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        echo, metadata = EchoStub(channel), mesh.bearer()

        async def slow() -> str:
            request = pb.UnaryRequest(text="slow", orders=pb.Orders(delay=Duration(seconds=20)))
            return (await echo.Unary(request, timeout=30, metadata=metadata)).text

        async def silent() -> list[int]:
            orders = pb.Orders(delay=Duration(seconds=SILENT_S))
            call = echo.ServerStream(pb.ServerStreamRequest(count=1, orders=orders), metadata=metadata)
            return [answer.index async for answer in call]

        async def waiting() -> str:
            call = echo.Bidi(metadata=metadata)
            await call.write(pb.BidiRequest(text="first"))
            await call.read()
            await asyncio.sleep(SILENT_S)
            await call.write(pb.BidiRequest(text="second"))
            answer = await call.read()
            assert isinstance(answer, pb.BidiResponse)
            return answer.text

        assert await asyncio.gather(slow(), silent(), waiting()) == ["slow", [0], "second"]
