"""Passages, a model that knows what some words mean, and a call that is being answered, for meanings to be learnt."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

import llmesh
from llmesh._client import MeshChannel, open_channel
from llmesh._delegation import DelegatedMesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer
from llmesh.call import Call, answer
from llmesh.caller import Caller
from llmesh.retrieval import Asked, Meanings, Passages
from llmesh.retrieval.meanings import PAUSE_S
from tests.eventually import eventually

AXES = {"dog": 0, "hound": 0, "cat": 1, "kitten": 1, "car": 2, "automobile": 2}
TEXTS = ("a dog barks", "a cat purrs", "a car brakes", "something else")


class Toy(ModelServiceServicer):
    """A model on a real socket. lie: what it does to its answers. asked: every text."""

    def __init__(self) -> None:
        self.name = "toy"
        self.asked: list[str] = []
        self.lie: Callable[[pb.EmbedResponse], None] = lambda _: None
        self.refusal: llmesh.MeshError | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def Embed(self, request: pb.EmbedRequest, context: object) -> pb.EmbedResponse:
        await self.goes_on.wait()
        if self.refusal:
            raise self.refusal
        self.asked += request.texts
        made = pb.Provenance(model=self.name, revision="1", weights_digest="sha256:0")
        response = pb.EmbedResponse(vectors=map(_vector, request.texts), dimension=4, provenance=made)
        self.lie(response)
        return response


def _vector(text: str) -> pb.Vector:
    axis = next((axis for word, axis in AXES.items() if word in text), 3)
    return pb.Vector(values=[float(at == axis) for at in range(4)])


@dataclass
class World:
    """Meanings in a folder, of passages that a test may change."""

    models: Toy
    channel: MeshChannel
    folder: Path
    passages: Passages = field(default_factory=lambda: Passages(TEXTS))
    now_s: float = 0.0
    unreadable: list[Exception] = field(default_factory=list[Exception])
    rests: list[float] = field(default_factory=list[float])

    def meanings(self) -> Meanings:
        async def passages() -> Passages:
            if self.unreadable:
                raise self.unreadable.pop()
            return self.passages

        async def pause(pause_s: float) -> None:
            self.rests.append(pause_s)
            await asyncio.sleep(0)

        return Meanings(self.folder, self, passages, pause=pause, now=lambda: self.now_s)

    async def ask(self, meanings: Meanings, query: str) -> Asked:
        """What is meant by a caller whose call is being answered."""
        mesh = DelegatedMesh(self.channel)
        answer(Call("/acme.Tool/Find", Caller("test", "ada"), call_id="", remaining=lambda: None, mesh=lambda: mesh))
        return await meanings.ask(query, self.passages)

    def found(self, asked: Asked) -> list[str]:
        """What is found by meaning alone, best first."""
        texts, everything = [*self.passages.texts.values()], np.ones(len(self.passages.texts), dtype=np.bool_)
        shares = np.zeros(len(texts), dtype=np.float32)
        return [texts[at] for at, _ in self.passages.best(shares, everything, asked, limit=10)]

    async def learnt(self, meanings: Meanings, query: str = "hound") -> Asked:
        """The first time that it is asked with all meanings known."""

        async def whole() -> Asked:
            self.now_s += PAUSE_S
            asked = await self.ask(meanings, query)
            assert asked.words_alone == ""
            return asked

        return await eventually(whole)


@asynccontextmanager
async def world(folder: Path, *, query_timeout_s: float = 60) -> AsyncGenerator[World]:
    """query_timeout_s: a machine that has much to do takes its time, which most tests are not about."""
    models = Toy()  # pyright: ignore[reportAbstractUsage] no other method is called
    with (
        patch("llmesh.embedding.QUERY_TIMEOUT_S", query_timeout_s),
        tempfile.TemporaryDirectory(prefix="toy-") as sockets,
    ):
        address = f"unix:{sockets}/s/models.sock"
        async with llmesh.Server(models, address=address, drain_limit_s=0.1):
            channel = MeshChannel(open_channel(address), metadata=lambda _: ())
            try:
                yield World(models, channel, folder / "meanings")
            finally:
                models.goes_on.set()
                await channel.close()
