"""How many of 1,000 messages, written by random weights at temperature 2, are read at the first attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from tests.bench.figures import Figure
from tests.bench.model_servers import STREAMS
from tests.llmesh.schema.shapes import PACKAGE, files, shapes
from tests.model_server.models import ModelServer

MESSAGES = 1000
TIMEOUT_S = 300.0


def parse_rate(server: ModelServer) -> Figure:
    """Ask for each shape in turn, until there are enough."""
    failed = asyncio.run(_failed(server))
    if failed:
        print(f"not read at the first attempt: {dict(Counter(failed))}")  # noqa: T201 who misses it needs to know
    return Figure("structured_parse_rate", 1 - len(failed) / MESSAGES, f"of {MESSAGES} messages", 1.0, ">=")


async def _failed(server: ModelServer) -> Sequence[str]:
    """The types of messages that were not read, or broke their rules, at the first attempt."""
    at_once = asyncio.Semaphore(STREAMS)

    async def ask(name: str) -> str:
        request = pb.GenerateMessageRequest(
            prompt="Say something: ",
            sampling=pb.Sampling(temperature=2),
            type=f"{PACKAGE}.{name}",
            descriptors=files(),
        )
        async with at_once:
            try:
                answer = await stub.GenerateMessage(request, timeout=TIMEOUT_S)
            except llmesh.FailedPrecondition:
                return name
        return name if answer.repair_count else ""

    async with llmesh.Mesh(f"unix:{server.socket}") as mesh:
        stub = ModelServiceStub(mesh.channel)
        told = await asyncio.gather(*(ask(name) for name in islice(cycle(shapes()), MESSAGES)))
    return [name for name in told if name]
