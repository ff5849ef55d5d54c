"""What one caller keeps of the models, whoever else asks: half of what may wait, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmesh import testing
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.caller import Caller
from llmesh.errors import OverQuota
from model_server.engine import Embedder, Engine, Piece
from model_server.models import Models, Served
from model_server.service import ModelServicer
from model_server.share import Share
from model_server.source import ModelSource
from model_server.workshop import Workshop
from tests.eventually import eventually
from tests.model_server.scripted import ScriptedEngine

if TYPE_CHECKING:
    from llmesh.api.model.v1.model_pb2_grpc import ModelServiceAsyncStub

ADA, BOB = Caller(issuer="corp", subject="ada"), Caller(issuer="corp", subject="bob")
CHOICE = pb.ChooseCallRequest(
    conversation=pb.Conversation(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="What now?")]),
    candidates=[pb.Candidate(method="acme.support.v1.Tickets/GetTicket")],
)
# Calls, and texts, that may be there at once; half of them are one caller's.
MOST = 4
CALL_S = 30.0


@dataclass(slots=True)
class Open(ScriptedEngine):
    """Writes one piece of a text, which then goes on until its caller leaves."""

    texts: list[str] = field(default_factory=list[str])
    reads: int = 0

    async def read(self, asked: pb.Conversation | str, *, reader: str, whole: bool = False) -> Sequence[int]:
        """One token."""
        self.reads += 1
        return [1]

    async def write(
        self, tokens: Sequence[int], sampling: pb.Sampling, *, reader: str, schema: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """A piece."""
        yield Piece("a", 1, pb.FINISH_REASON_UNSPECIFIED, cached_token_count=0)
        await asyncio.Event().wait()

    async def wait_for_death(self) -> None:
        """It lives."""
        await asyncio.Event().wait()


@dataclass(slots=True)
class Shut:
    """Makes vectors once it is let go. counts: how often it was asked how long texts are."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    counts: int = 0
    context_length: int = 8
    capabilities: tuple[pb.ModelCapability.ValueType, ...] = (pb.MODEL_CAPABILITY_EMBED,)
    dimension: int = 1

    async def count(self, texts: Sequence[str], *, reader: str) -> Sequence[int]:
        """One token each."""
        self.counts += 1
        return [1] * len(texts)

    async def embed(self, texts: Sequence[str], *, reader: str) -> Sequence[Sequence[float]]:
        """All the same."""
        await self.go.wait()
        return [[1.0]] * len(texts)

    async def wait_for_death(self) -> None:
        """It lives."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """It has nothing to end."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A model server, of what stands in for its models."""

    tool: testing.ToolUnderTest
    engine: Open
    embedder: Shut

    def stub(self, caller: Caller) -> ModelServiceAsyncStub:
        """Its methods, for a caller."""
        return ModelServiceStub(self.tool.as_(caller))


async def found() -> ModelSource:
    """No files of any model."""
    return ModelSource("tiny", Path(), "1", "sha256:1")


@pytest.fixture
async def serving() -> AsyncGenerator[Serving]:
    engine, embedder = Open(), Shut()

    async def start_engine(_: ModelSource) -> Engine:
        return engine

    async def start_embedder(_: ModelSource) -> Embedder:
        return embedder

    models = Models(Served[Engine]("writes", found, start_engine), Served[Embedder]("embeds", found, start_embedder))
    async with models, Workshop() as workshop:
        servicer = ModelServicer(models, workshop, calls=Share(MOST, "calls"), texts=Share(MOST, "texts"))
        async with testing.run(servicer) as tool:

            async def is_ready() -> None:
                listed = await ModelServiceStub(tool.channel).ListModels(pb.ListModelsRequest())
                assert all(each.ready for each in listed.models)

            await eventually(is_ready)
            yield Serving(tool, engine, embedder)


def test_one_caller_has_half_of_what_may_be_there_and_all_together_have_no_more_than_that() -> None:
    share = Share(5, "calls")
    with share.take("ada", 2), share.take("ada"):
        with pytest.raises(OverQuota, match="yours") as told, share.take("ada"):
            pass
        assert (told.value.reason, bool(told.value.retry_after_s)) == ("QUEUE_FULL", True)
        with share.take("bob", 2), pytest.raises(OverQuota), share.take("eve"):
            pass
        with share.take("eve", 2):
            pass
    with share.take("ada", 3):
        pass


async def test_a_caller_with_half_of_the_calls_is_refused_before_anything_is_read_and_others_are_served(
    serving: Serving,
) -> None:
    ada, bob = serving.stub(ADA), serving.stub(BOB)
    request = pb.GenerateRequest(prompt="a")
    calls = [ada.Generate(request) for _ in range(MOST // 2)]
    for call in calls:
        assert isinstance(await call.read(), pb.GenerateResponse)
    reads = serving.engine.reads
    for asking in (
        ada.Generate(request, timeout=CALL_S).read(),
        ada.GenerateMessage(pb.GenerateMessageRequest(prompt="a", type="M"), timeout=CALL_S),
        ada.ChooseCall(CHOICE, timeout=CALL_S),
        ada.CountTokens(pb.CountTokensRequest(prompt="a"), timeout=CALL_S),
    ):
        with pytest.raises(OverQuota) as told:
            await asking
        assert (told.value.reason, bool(told.value.retry_after_s)) == ("QUEUE_FULL", True)
    assert serving.engine.reads == reads
    assert isinstance(await bob.Generate(request).read(), pb.GenerateResponse)
    calls[0].cancel()

    async def is_free() -> None:
        assert isinstance(await ada.Generate(request).read(), pb.GenerateResponse)

    await eventually(is_free)


async def test_a_caller_with_half_of_the_texts_is_refused_before_any_is_read_and_others_are_served(
    serving: Serving,
) -> None:
    ada, bob = serving.stub(ADA), serving.stub(BOB)
    one = pb.EmbedRequest(texts=["a"])
    embedding = [asyncio.ensure_future(ada.Embed(one)) for _ in range(MOST // 2)]

    async def are_there() -> None:
        assert serving.embedder.counts == len(embedding)

    await eventually(are_there)
    with pytest.raises(OverQuota) as told:
        await ada.Embed(one, timeout=CALL_S)
    assert (told.value.reason, bool(told.value.retry_after_s)) == ("QUEUE_FULL", True)
    assert serving.embedder.counts == len(embedding)
    other = asyncio.ensure_future(bob.Embed(one))
    serving.embedder.go.set()
    assert len((await other).vectors) == 1
    await asyncio.gather(*embedding)
    assert len((await ada.Embed(pb.EmbedRequest(texts=["a"] * (MOST // 2)))).vectors) == MOST // 2
