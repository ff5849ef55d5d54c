"""What is asked in, tools out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Tool
from gateway.search.index import Entry, Index, missing
from gateway.search.ranking import Ranking
from gateway.search.texts import meanings_of, words_of
from gateway.search.vectors import NONE, Vectors, key_of
from llmesh.api.options.v1 import options_pb2
from tests.gateway.services.world import DOC_SEARCH, ESCALATIONS, TICKET_TOOL, small_mesh

WORDS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), max_size=6)


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
    assert _rank(_index(small_mesh().values()), query)[0][0] == first


@pytest.mark.parametrize("query", ["zebra", "", "..", "\0"])
def test_words_of_no_tool_find_nothing(query: str) -> None:
    assert _rank(_index(small_mesh().values()), query) == []


def test_empty_mesh_finds_nothing() -> None:
    assert _rank(_index([]), "ticket") == []


def test_equal_scores_come_in_order_of_names() -> None:
    tool = small_mesh()[TICKET_TOOL]
    twins = [replace(tool, service=f"acme.support.v1.{name}") for name in ("B", "C", "A")]
    assert [service[-1] for service, _ in _rank(_index(twins), "ticket")] == ["A", "B", "C"]


@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=8), st.lists(st.sampled_from("abcdefg"), unique=True))
def test_scores_are_those_of_a_mesh_of_the_tools_that_take_part(
    documents: list[tuple[dict[str, int], bool]], asked: list[str]
) -> None:
    among = np.array([part for _, part in documents], dtype=np.bool_)
    alone = Ranking([words for words, part in documents if part])
    scores = Ranking([words for words, _ in documents]).shares(asked, among)
    expected = alone.shares(asked, np.ones(int(among.sum()), dtype=np.bool_))
    np.testing.assert_allclose(scores[among], expected, rtol=1e-5)
    assert not scores[~among].any()


@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(st.sampled_from("abcdefg"), unique=True))
def test_words_score_between_nothing_and_all_that_is_asked(documents: list[dict[str, int]], asked: list[str]) -> None:
    scores = Ranking(documents).shares(asked, np.ones(len(documents), dtype=np.bool_))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_tool_is_found_by_what_it_means() -> None:
    index = _meaning({"a": "north", "b": "south"}, north=(0, 1), south=(0, -1))
    assert index.rank("?", _all(index), _vector(0, 1)) == [("a", pytest.approx(2 / 3))]


def test_what_comes_no_nearer_than_chance_is_found_by_its_words_alone() -> None:
    index = _meaning({"a": "north", "b": "north"}, north=(0, 1))
    far, near = _vector(math.sqrt(1 - 0.2**2), 0.2), _vector(math.sqrt(1 - 0.3**2), 0.3)
    assert index.rank("?", _all(index), far) == []
    assert [name for name, _ in index.rank("b", _all(index), far)] == ["b"]
    assert [name for name, _ in index.rank("?", _all(index), near)] == ["a", "b"]


def test_what_means_the_contrary_is_found_by_its_words_all_the_same() -> None:
    index = _meaning({"a": "north", "b": "south"}, north=(0, 1), south=(0, -1))
    by_words = {name for name, _ in index.rank("b", _all(index), None)}
    assert by_words == {"b"}
    assert [name for name, _ in index.rank("b", _all(index), _vector(0, 1))] == ["a", "b"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_no_score_is_above_1(seed: int, count: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = Vectors("m", {key_of(str(at)): row for at, row in enumerate(rows)})
    index = Index({f"tool{at}": _entry("word", str(at)) for at in range(count)}, vectors)
    assert all(0 < score <= 1.0001 for _, score in index.rank("word", _all(index), rows[0]))


def test_tool_without_a_vector_is_found_by_words_beside_those_with_one() -> None:
    index = _meaning({"a": "north", "b": "unknown"}, north=(0, 1))
    assert index.lacks(_all(index))
    assert not index.lacks(np.array([True, False]))
    assert [name for name, _ in index.rank("b", _all(index), _vector(0, 1))] == ["a", "b"]


def test_name_that_is_asked_for_comes_before_what_means_as_much() -> None:
    index = _meaning({"a": "north", "b": "north"}, north=(0, 1))
    assert [name for name, _ in index.rank("b", _all(index), _vector(0, 1))] == ["b", "a"]


def test_nothing_is_told_of_meanings_of_tools_that_do_not_take_part() -> None:
    index = _meaning({"a": "north", "b": "south"}, north=(0, 1), south=(0, 1))
    assert index.rank("?", np.array([False, True]), _vector(0, 1)) == [("b", pytest.approx(2 / 3))]


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=1, max_size=50))
def test_scores_by_meaning_are_those_of_a_mesh_of_the_tools_that_take_part_to_the_last_digit(
    seed: int, parts: list[bool]
) -> None:
    rows = np.random.default_rng(seed).standard_normal((len(parts), 384)).astype(np.float32)
    vectors = Vectors("m", {key_of(str(at)): row for at, row in enumerate(rows)})
    entries = {f"tool{at}": _entry(f"word{at}", str(at)) for at in range(len(parts))}
    alone = Index({name: entry for (name, entry), part in zip(entries.items(), parts, strict=True) if part}, vectors)
    asked = rows.mean(axis=0)
    found = Index(entries, vectors).rank("word0 word1", np.array(parts), asked)
    assert found == alone.rank("word0 word1", _all(alone), asked)


def test_only_meanings_without_a_vector_are_missing() -> None:
    entries = [_entry("a", "north"), _entry("b", "east")]
    vectors = Vectors("m", {key_of("north"): _vector(0, 1)})
    assert missing(entries, vectors) == {key_of("east"): "east"}


def test_tool_is_found_by_what_one_of_its_sentences_means() -> None:
    vectors = Vectors("m", {key_of("north, then west"): _vector(0, 1), key_of("west"): _vector(1, 0)})
    one, both = _entry("a", "north, then west"), _entry("b", "north, then west", "west")
    index = Index({"a": one, "b": both}, vectors)
    assert index.rank("?", _all(index), _vector(1, 0)) == [("b", pytest.approx(1 / 3))]


def test_tool_of_which_one_sentence_has_no_vector_is_found_by_words() -> None:
    vectors = Vectors("m", {key_of("north"): _vector(0, 1)})
    index = Index({"a": _entry("a", "north", "west")}, vectors)
    assert index.lacks(_all(index))
    assert index.rank("?", _all(index), _vector(0, 1)) == []
    assert [name for name, _ in index.rank("a", _all(index), _vector(0, 1))] == ["a"]


def test_tool_says_what_it_is_for_whole_and_sentence_by_sentence() -> None:
    sheet = options_pb2.Tool(name="Leases", summary="Keeps rental contracts. Warns in time! Of what?")
    whole, *sentences = meanings_of(replace(small_mesh()[TICKET_TOOL], sheet=sheet))
    assert whole == "Leases: Keeps rental contracts. Warns in time! Of what?"
    assert sentences == ["Keeps rental contracts.", "Warns in time!", "Of what?"]


def test_tool_that_says_nothing_is_known_by_its_name() -> None:
    assert meanings_of(replace(small_mesh()[DOC_SEARCH], sheet=options_pb2.Tool())) == [
        "doc search: doc search",
        "doc search",
    ]


def test_what_a_hostile_tool_says_is_cut() -> None:
    sheet = options_pb2.Tool(name="x", summary="y. " * 100_000)
    whole, *sentences = meanings_of(replace(small_mesh()[DOC_SEARCH], sheet=sheet))
    assert len(whole) == 2000
    assert sentences == ["y."] * 8


def test_no_sentence_is_empty_where_the_rest_is_cut() -> None:
    sheet = options_pb2.Tool(summary="y" * 1998 + ". And more.")
    _, *sentences = meanings_of(replace(small_mesh()[DOC_SEARCH], sheet=sheet))
    assert sentences == ["y" * 1998 + "."]


def _rank(index: Index, query: str) -> list[tuple[str, float]]:
    return index.rank(query, _all(index), None)


def _all(index: Index) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.ones(len(index.services), dtype=np.bool_)


def _index(tools: Iterable[Tool]) -> Index:
    return Index({tool.service: Entry(words_of(tool), {key_of(tool.service): tool.service}) for tool in tools}, NONE)


def _meaning(meanings: dict[str, str], **vectors: tuple[float, float]) -> Index:
    known = {key_of(text): _vector(*numbers) for text, numbers in vectors.items()}
    return Index({name: _entry(name, meaning) for name, meaning in meanings.items()}, Vectors("m", known))


def _entry(name: str, *meanings: str) -> Entry:
    return Entry({name: 1}, {key_of(text): text for text in meanings})


def _vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, dtype=np.float32)
