"""Calls that take long, and streams that are silent for long, are not cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from google.protobuf.duration_pb2 import Duration

from gateway.listener import listener
from llmesh._client import open_channel
from llmesh.supervisor import plan
from tests.e2e.mesh import ECHO, RunningMesh, running_mesh

# Longer than Envoy gives a call where nothing else is said: 15 s.
SILENT_S = 20
# What the mesh itself gives a connection, which calls are to outlast.
CONNECTION_S = 5


@pytest.fixture
def mesh() -> Iterator[RunningMesh]:
    """A mesh that lets connections without a call go soon, and asks often whether the other side is there."""
    with running_mesh(start=False) as running:
        running.start_gateway()
        plan.write_bootstrap(running.home, running.file)
        bootstrap = running.home.state / "envoy.json"
        text = bootstrap.read_text()
        for seconds in (listener.IDLE_S, listener.KEEPALIVE_S):
            assert f'"{seconds}s"' in text
            text = text.replace(f'"{seconds}s"', f'"{CONNECTION_S}s"')
        bootstrap.write_text(text)
        running.start("envoy", plan.envoy(running.home).argv)
        running.start_echo()
        running.wait_ready(ECHO)
        yield running


async def test_a_slow_answer_and_a_silent_stream_come_whole(mesh: RunningMesh) -> None:
    async with open_channel(mesh.address) as channel:
        echo, metadata = EchoStub(channel), mesh.bearer()

        async def slow() -> str:
            request = pb.UnaryRequest(text="slow", orders=pb.Orders(delay=Duration(seconds=SILENT_S)))
            return (await echo.Unary(request, timeout=SILENT_S + 9, metadata=metadata)).text

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
