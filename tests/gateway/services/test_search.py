"""Words in, tools out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gateway.catalog import Catalog, Tool
from gateway.services.search import Index, Searcher, tokens, words_of
from gateway.services.visible import Seen
from llmesh.api.options.v1 import options_pb2
from tests.gateway.services.world import DOC_SEARCH, ESCALATIONS, TICKET_TOOL, small_mesh


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("acme.support.v1", ["acme", "support", "v", "1", "v1"], id="dots"),
        pytest.param("ticket_id", ["ticket", "id"], id="snake case"),
        pytest.param("DocSearch", ["doc", "search", "docsearch"], id="camel case"),
        pytest.param("HTTPServer", ["http", "server", "httpserver"], id="initials"),
        pytest.param("Tickets", ["ticket"], id="plural"),
        pytest.param("queries boxes searches", ["query", "box", "search"], id="other plurals"),
        pytest.param("status class analysis bus", ["status", "class", "analysis", "bus"], id="no plural"),
        pytest.param("Straße ÜBER", ["strasse", "über"], id="letters beyond ASCII"),
        pytest.param("!?  --", [], id="no words"),
    ],
)
def test_text_is_cut_into_folded_words(text: str, expected: list[str]) -> None:
    assert list(tokens(text)) == expected


@pytest.mark.parametrize(
    ("query", "first"),
    [
        pytest.param("documentation", DOC_SEARCH, id="name of the sheet"),
        pytest.param("docsearch", DOC_SEARCH, id="name of the service"),
        pytest.param("delete ticket", TICKET_TOOL, id="name of a method"),
        pytest.param("customers", TICKET_TOOL, id="summary"),
        pytest.param("passage", DOC_SEARCH, id="summary of a method, singular"),
        pytest.param("handbook", DOC_SEARCH, id="meaning of a field"),
        pytest.param("laptop", DOC_SEARCH, id="example"),
        pytest.param("FindRequest", DOC_SEARCH, id="type"),
        pytest.param("KIND_GUIDE", DOC_SEARCH, id="value of an enum"),
        pytest.param("engineering", DOC_SEARCH, id="domain"),
        pytest.param("English language", TICKET_TOOL, id="label"),
        pytest.param("escalate", ESCALATIONS, id="method"),
    ],
)
def test_tool_is_found_by(query: str, first: str) -> None:
    assert _index(small_mesh().values()).rank(query)[0][0] == first


@pytest.mark.parametrize("query", ["zebra", "", "..", "\0"])
def test_words_of_no_tool_find_nothing(query: str) -> None:
    assert _index(small_mesh().values()).rank(query) == []


def test_empty_mesh_finds_nothing() -> None:
    assert _index([]).rank("ticket") == []


def test_equal_scores_come_in_order_of_names() -> None:
    tool = small_mesh()[TICKET_TOOL]
    twins = [replace(tool, service=f"acme.support.v1.{name}") for name in ("B", "C", "A")]
    assert [service[-1] for service, _ in _index(twins).rank("ticket")] == ["A", "B", "C"]


async def test_unseen_tools_are_left_out_before_the_ranking_is_cut() -> None:
    catalog = Catalog(1, small_mesh())

    def see(tool: Tool | None) -> Seen | None:
        return Seen(tool, frozenset({"GetTicket"})) if tool and tool.service == TICKET_TOOL else None

    hits = await Searcher().search(catalog, "escalations, or a ticket", see=see, limit=1)
    assert [hit.seen.tool.service for hit in hits] == [TICKET_TOOL]


async def test_tool_that_comes_is_found_and_one_that_goes_is_not() -> None:
    searcher, tools = Searcher(), small_mesh()

    async def found(version: int, *names: str) -> list[str]:
        catalog = Catalog(version, {name: tools[name] for name in names})
        hits = await searcher.search(catalog, "tickets", see=_see_all, limit=10)
        return [hit.seen.tool.service for hit in hits]

    assert await found(1, DOC_SEARCH) == []
    assert await found(2, DOC_SEARCH, TICKET_TOOL) == [TICKET_TOOL]
    assert await found(3, DOC_SEARCH) == []


async def test_words_of_a_tool_that_changed_its_sheet_are_read_again() -> None:
    searcher, tool = Searcher(), small_mesh()[TICKET_TOOL]
    sheet = options_pb2.Tool(name="Grievances")
    for version, tools, expected in (
        (1, [tool], []),
        (2, [replace(tool, ready=frozenset())], []),
        (3, [replace(tool, sheet=sheet)], [TICKET_TOOL]),
    ):
        catalog = Catalog(version, {tool.service: tool for tool in tools})
        hits = await searcher.search(catalog, "grievance", see=_see_all, limit=10)
        assert [hit.seen.tool.service for hit in hits] == expected


async def test_mesh_of_many_tools_is_searched_while_it_is_read() -> None:
    tool = small_mesh()[TICKET_TOOL]
    names = [f"acme.support.v1.Tool{number:03}" for number in range(100)]
    catalog = Catalog(1, {name: replace(tool, service=name) for name in names})
    searcher = Searcher()
    answers = await asyncio.gather(*(searcher.search(catalog, "ticket", see=_see_all, limit=3) for _ in range(3)))
    assert [[hit.seen.tool.service for hit in hits] for hits in answers] == [names[:3]] * 3


def _index(tools: Iterable[Tool]) -> Index:
    return Index({tool.service: list(words_of(tool)) for tool in tools})


def _see_all(tool: Tool | None) -> Seen | None:
    return Seen(tool, frozenset({"any"})) if tool else None
