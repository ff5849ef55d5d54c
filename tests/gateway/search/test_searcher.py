"""Searches for callers who see different tools, with a model server that comes, goes, fails and is replaced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.catalog import CatalogBoard, Tool
from gateway.search import index
from gateway.search.embedding import BATCH
from gateway.search.index import Entry, Index
from gateway.search.learner import Learner
from gateway.search.searcher import REST_S, Found, Searcher
from gateway.search.vectors import Vectors
from governance.words import Caller
from llmesh.api.options.v1 import options_pb2
from llmesh.embedding import MODELS, Embedded, NotEmbeddedError
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock
from tests.gateway.services.world import AGENT, DOC_SEARCH, ENGINEER, ESCALATIONS, TICKET_TOOL, small_mesh

LEARNING = "what some tools mean is still being learnt"
# What the model of these tests has learnt of the world.
MEANS = {"ticket": 0, "grievance": 0, "documentation": 1, "manual": 1}


@dataclass
class Models:
    """The model server, as a search meets it."""

    model: str = "m1"
    refusal: NotEmbeddedError | None = None
    hangs: bool = False
    asked: list[str] = field(default_factory=list[str])

    async def embed(self, texts: Sequence[str]) -> Embedded:
        assert len(texts) <= BATCH
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusal:
            raise self.refusal
        self.asked += texts
        return Embedded(self.model, [_vector(text.lower()) for text in texts])

    async def embed_query(self, query: str) -> Embedded:
        return await self.embed([query])


def _vector(text: str) -> list[float]:
    axis = next((axis for word, axis in MEANS.items() if word in text), 2)
    return [1.0 if at == axis else 0.0 for at in range(3)]


@dataclass
class World:
    """A searcher over a board that the test posts to. sees: what each caller does not see."""

    models: Models
    board: CatalogBoard
    clock: FakeClock
    searcher: Searcher
    unseen: dict[Caller, frozenset[str]]

    async def post(self, *names: str, models: bool = True, ready: bool = True, **changed: Tool) -> None:
        tools = {name: small_mesh()[name] for name in names} | {tool.service: tool for tool in changed.values()}
        if models:
            # Not among the tools that are looked for.
            tools[MODELS] = replace(small_mesh()[DOC_SEARCH], service=MODELS, sheet=options_pb2.Tool())
            if not ready:
                tools[MODELS] = replace(tools[MODELS], ready=frozenset())
        await self.board.post(tools, {})

    async def search(self, query: str, caller: Caller = AGENT) -> Found:
        return await self.searcher.search(caller, query, self.models.embed_query)

    async def learnt(self, query: str = "grievance") -> Found:
        async def whole() -> Found:
            found = await self.search(query)
            assert not found.words_alone
            return found

        return await eventually(whole)


@asynccontextmanager
async def world(folder: Path, models: Models | None = None) -> AsyncGenerator[World]:
    models, board, clock, unseen = models or Models(), CatalogBoard(), FakeClock(), dict[Caller, frozenset[str]]()

    def sees(tool: Tool, caller: Caller) -> object | None:
        return None if tool.service in unseen.get(caller, ()) else tool

    searcher = Searcher(
        *(lambda: board.current, sees, Learner(models.embed, folder / "tools.vectors")),
        rules=lambda: tuple(unseen.items()),
        clock=clock,
        unsearched={MODELS},
    )
    running = asyncio.create_task(searcher.run(board.watch()))
    try:
        yield World(models, board, clock, searcher, unseen)
    finally:
        running.cancel()


async def test_tool_is_found_by_what_it_means(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        found = await mesh.learnt("grievances")
        assert found.hits[0] == (TICKET_TOOL, pytest.approx(2 / 3))
        assert found.model == "m1"


@pytest.mark.parametrize(
    ("posted", "told"),
    [
        ({"models": False}, "no model server is on the mesh"),
        ({"models": True, "ready": False}, "the model server does not answer now"),
    ],
)
async def test_words_alone_decide_without_a_model_server(tmp_path: Path, posted: dict[str, bool], told: str) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh(), models=posted["models"], ready=posted.get("ready", True))
        found = await mesh.search("tickets")
        assert [name for name, _ in found.hits] == [TICKET_TOOL, ESCALATIONS]
        assert (found.words_alone, found.model) == (told, "")
        assert mesh.models.asked == []


async def test_model_server_that_hangs_keeps_no_search_from_words(tmp_path: Path) -> None:
    async with world(tmp_path, Models(hangs=True)) as mesh:
        await mesh.post(*small_mesh())

        async def too_slow(_: str) -> Embedded:
            raise NotEmbeddedError("too slow", away=True)

        found = await mesh.searcher.search(AGENT, "tickets", too_slow)
        assert [name for name, _ in found.hits] == [TICKET_TOOL, ESCALATIONS]
        assert found.words_alone == "too slow"


async def test_model_server_that_failed_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        await mesh.learnt()
        mesh.models.refusal = NotEmbeddedError("it is away", away=True)
        assert (await mesh.search("grievance")).words_alone == "it is away"
        mesh.models.refusal = None
        mesh.clock.stand_still(REST_S - 1)
        assert (await mesh.search("grievance")).words_alone == "the model server did not answer a moment ago"
        mesh.clock.stand_still(1)
        assert (await mesh.search("grievance")).hits[0][0] == TICKET_TOOL


async def test_caller_who_may_not_embed_goes_by_words_and_others_by_meanings(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        await mesh.learnt()
        mesh.models.refusal = NotEmbeddedError("no rule permits it")
        assert (await mesh.search("grievance", ENGINEER)).words_alone == "no rule permits it"
        mesh.models.refusal = None
        assert not (await mesh.search("grievance")).words_alone


@pytest.mark.parametrize("models", [True, False])
async def test_tools_that_are_not_seen_change_nothing(tmp_path: Path, models: bool) -> None:  # noqa: FBT001
    query = "documentation of customers, or their ticket: a grievance"
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    async with world(whole) as mesh, world(part) as alone:
        await mesh.post(*small_mesh(), models=models)
        await alone.post(DOC_SEARCH, models=models)
        mesh.unseen[ENGINEER] = frozenset({TICKET_TOOL, ESCALATIONS})
        if models:
            await mesh.learnt()
            await alone.learnt()
        found = await mesh.search(query, ENGINEER)
        assert found == await alone.search(query, ENGINEER)
        assert [name for name, _ in found.hits] == [DOC_SEARCH]
        assert (await mesh.search(query)).hits[0][0] != DOC_SEARCH


async def test_what_is_not_learnt_yet_of_tools_that_are_not_seen_is_not_told(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(DOC_SEARCH)
        await mesh.learnt()
        mesh.models.hangs = True
        mesh.unseen[ENGINEER] = frozenset({TICKET_TOOL})
        await mesh.post(DOC_SEARCH, TICKET_TOOL)
        mesh.models.hangs = False
        assert (await mesh.search("manual", ENGINEER)).words_alone == ""


async def test_rules_that_change_what_is_seen_change_what_is_found(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh(), models=False)
        assert [name for name, _ in (await mesh.search("ticket")).hits] == [TICKET_TOOL, ESCALATIONS]
        mesh.unseen[AGENT] = frozenset({TICKET_TOOL})
        assert [name for name, _ in (await mesh.search("ticket")).hits] == [ESCALATIONS]


async def test_tool_that_comes_is_found_and_one_that_goes_is_not(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        for names, expected in (((DOC_SEARCH,), []), ((DOC_SEARCH, TICKET_TOOL), [TICKET_TOOL]), ((DOC_SEARCH,), [])):
            await mesh.post(*names, models=False)
            assert [name for name, _ in (await mesh.search("tickets")).hits] == expected


async def test_only_what_a_tool_says_anew_is_embedded_again(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        await mesh.learnt()
        tool = small_mesh()[TICKET_TOOL]
        sheet = options_pb2.Tool()
        sheet.CopyFrom(tool.sheet)
        sheet.summary = "The manual."
        mesh.models.asked.clear()
        await mesh.post(*small_mesh(), changed=replace(tool, sheet=sheet))
        await mesh.learnt("?")
        assert [text for text in mesh.models.asked if text != "?"] == ["The manual.", "Tickets: The manual."]
        assert (await mesh.search("manual")).hits[0][1] == pytest.approx(2 / 3, abs=0.2)


async def test_gateway_that_starts_again_embeds_nothing_again(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        await mesh.learnt()
        await eventually(lambda: _exists(tmp_path))
    async with world(tmp_path) as again:
        await again.post(*small_mesh())
        assert (await again.learnt()).hits[0][0] == TICKET_TOOL
        assert set(again.models.asked) == {"grievance"}


async def test_damaged_vectors_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "tools.vectors").write_bytes(b"damaged")
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        assert (await mesh.learnt()).hits[0][0] == TICKET_TOOL


async def test_another_model_learns_everything_again(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(*small_mesh())
        await mesh.learnt()
        mesh.models.model = "m2"
        mesh.models.asked.clear()
        found = await mesh.search("grievance")
        assert (found.hits, found.words_alone, found.model) == ([], LEARNING, "")
        assert (await mesh.learnt()).model == "m2"
        assert {"Tickets: Keeps the customers' tickets."} < set(mesh.models.asked)


async def test_learning_that_fails_is_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path, Models(refusal=NotEmbeddedError("too many calls wait"))) as mesh:
        await mesh.post(*small_mesh())
        assert (await mesh.search("grievance")).hits == []
        mesh.models.refusal = None

        async def learnt() -> None:
            await mesh.clock.pass_(REST_S)
            assert not (await mesh.search("grievance")).words_alone

        await eventually(learnt)


async def test_mesh_of_many_tools_is_searched_while_it_is_read(tmp_path: Path) -> None:
    tool = small_mesh()[TICKET_TOOL]
    names = [f"acme.support.v1.Tool{number:03}" for number in range(100)]
    many: Mapping[str, Tool] = {name: replace(tool, service=name) for name in names}
    async with world(tmp_path) as mesh:
        await mesh.board.post(many, {})
        answers = await asyncio.gather(*(mesh.search("ticket") for _ in range(3)))
        assert [[name for name, _ in found.hits] for found in answers] == [names] * 3


@dataclass
class Making:
    """Indexes that take as long to make as those of many tools: until `go` is set. count: how many were begun."""

    go: threading.Event = field(default_factory=threading.Event)
    count: int = 0

    async def begun(self) -> None:
        assert self.count


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Making:
    slow = Making()

    def held(entries: Mapping[str, Entry], vectors: Vectors) -> Index:
        slow.count += 1
        assert slow.go.wait(60)
        return Index(entries, vectors)

    monkeypatch.setattr(index, "Index", held)
    return slow


async def test_searches_of_a_newer_catalog_than_an_index_is_made_of_wait_for_their_own(
    tmp_path: Path, making: Making
) -> None:
    async with world(tmp_path) as mesh:
        await mesh.post(DOC_SEARCH, models=False)
        older = asyncio.create_task(mesh.search("tickets"))
        await eventually(making.begun)
        await mesh.post(*small_mesh(), models=False)
        newer = [asyncio.create_task(mesh.search("tickets")) for _ in range(3)]
        await asyncio.sleep(0)
        making.go.set()
        assert (await older).hits == []
        assert [(await search).hits[0][0] for search in newer] == [TICKET_TOOL] * 3
        assert making.count == 2


async def _exists(folder: Path) -> None:
    assert (folder / "tools.vectors").exists()
