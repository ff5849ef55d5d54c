"""What is meant, where a model stands in for the mesh's own."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from acme.engineering.v1.doc_search_pb2_grpc import DocSearchStub
from doc_search.index import Index, rank
from doc_search.passages import Passage
from doc_search.service import DocSearch

import llmesh
from llmesh import testing
from llmesh.api.retrieval.v1.retrieval_pb2 import Filter, RetrieveRequest, RetrieveResponse
from llmesh.retrieval import Meanings, Passages
from tests.eventually import eventually
from tests.llmesh.retrieval.world import Toy

if TYPE_CHECKING:
    from acme.engineering.v1.doc_search_pb2_grpc import DocSearchAsyncStub

TEXTS = {
    "zoo.Dog": ("class", "A dog barks."),
    "zoo.bark": ("function", "Makes the dog bark."),
    "zoo.Cat": ("class", "A cat purrs."),
    "road.Car": ("class", "A car brakes."),
}


@dataclass
class Answering:
    """A tool that learns by a model."""

    models: Toy
    stub: "DocSearchAsyncStub"

    async def ask(self, query: str, **filters: str) -> tuple[RetrieveResponse, dict[str, str]]:
        """What it answers, and what that rests on."""
        asked = [Filter(attribute=name, values=[value]) for name, value in filters.items()]
        call = self.stub.Retrieve(RetrieveRequest(query=query, filters=asked), timeout=60)
        response = await call
        [cited] = json.loads(dict(await call.trailing_metadata() or ())["x-llmesh-provenance"])
        return response, cited

    async def learnt(self, query: str, **filters: str) -> list[str]:
        """The names that it finds once it has learnt what all passages mean."""

        async def whole() -> list[str]:
            response, _ = await self.ask(query, **filters)
            assert response.words_alone == ""
            return [passage.citation.title for passage in response.passages]

        return await eventually(whole)


@pytest.fixture
async def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Answering]:
    # On a machine that has much to do, a model takes its time.
    monkeypatch.setattr("llmesh.embedding.QUERY_TIMEOUT_S", 60)
    async with answering(tmp_path) as running:
        yield running


@asynccontextmanager
async def answering(folder: Path) -> AsyncGenerator[Answering]:
    found = [
        Passage(name, kind, name.partition(".")[0], f"pydoc {name}", f"{name}\n\n{text}")
        for name, (kind, text) in TEXTS.items()
    ]
    index, own_mesh, models = Index(found, rank(found), digest="0"), llmesh.OwnMesh(), Toy()  # pyright: ignore[reportAbstractUsage] no other method is called

    async def passages() -> Passages:
        return index.meant

    meanings = Meanings(folder / "meanings", own_mesh, passages)
    async with (
        testing.run(DocSearch(index, meanings), own_mesh=own_mesh, mesh=(models,)) as running,
        # As `serve` would, but once the tool has been told who it is.
        meanings,
    ):
        yield Answering(models, DocSearchStub(running.channel))


async def test_entry_is_found_by_what_it_means(tool: Answering) -> None:
    assert await tool.learnt("kitten") == ["zoo.Cat"]
    assert {*await tool.learnt("hound")} == {"zoo.Dog", "zoo.bark"}


async def test_only_entries_that_pass_the_filters_are_found_by_meaning(tool: Answering) -> None:
    assert await tool.learnt("hound", kind="function") == ["zoo.bark"]
    assert await tool.learnt("hound", module="road") == []


async def test_an_entry_that_says_it_and_means_it_comes_first(tool: Answering) -> None:
    assert (await tool.learnt("bark like a hound"))[0] == "zoo.bark"


async def test_provenance_names_the_model_where_meanings_were_compared(tool: Answering) -> None:
    await tool.learnt("hound")
    _, cited = await tool.ask("hound")
    assert cited["model"] == "toy 1 sha256:0 4"


async def test_words_answer_while_the_model_server_is_away_and_it_is_said(tool: Answering) -> None:
    await tool.learnt("hound")
    tool.models.refusal = llmesh.Unavailable("it is being restarted")
    response, cited = await tool.ask("cat")
    assert [passage.citation.title for passage in response.passages] == ["zoo.Cat"]
    assert response.words_alone == "the model server did not take the query: it is being restarted"
    assert "model" not in cited
