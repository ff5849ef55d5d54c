"""The best passages by what they mean, where some pass and others don't."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from llmesh.retrieval import Asked, Flags, Passages
from llmesh.retrieval.asked import Meaning
from llmesh.retrieval.nearest import Nearest, Vector
from llmesh.retrieval.vectors import key_of

COUNT, DIMENSION = 6000, 64
TEXTS = [f"text {number}" for number in range(COUNT)]
NO_WORDS = np.zeros(COUNT, dtype=np.float32)


def unit(rows: Vector) -> Vector:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def rows() -> Vector:
    return unit(np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32))


@pytest.fixture(scope="module")
def index(rows: Vector) -> Nearest:
    index = Nearest.build("a model", {key_of(text): row for text, row in zip(TEXTS, rows, strict=True)})
    assert index.graph is not None
    return index


def passing(how: str, rows: Vector, query: Vector) -> Flags:
    """Which pass."""
    random = np.random.default_rng(5).random(COUNT)
    cosines = rows @ query
    return {
        "all": random < 1,
        "most": random < 0.9,
        "half": random < 0.5,
        "few": random < 0.01,
        "none": random < 0,
        "the nearest not": cosines < np.sort(cosines)[-COUNT // 2],
    }[how]


PASSING = ["all", "most", "half", "few", "none", "the nearest not"]


@pytest.mark.parametrize("how", PASSING)
def test_the_nearest_of_those_that_pass_are_found(index: Nearest, rows: Vector, how: str) -> None:
    query = unit(rows[:4].sum(axis=0))
    passes = passing(how, rows, query)
    found = Passages(TEXTS).best(NO_WORDS, passes, Asked(Meaning(query, index)), limit=10)

    cosines = np.where(passes, rows @ query, 0)
    nearest = [at for at in np.argsort(-cosines, kind="stable")[:10].tolist() if cosines[at] >= 0.3]
    assert [at for at, _ in found] == nearest


@pytest.mark.parametrize("how", PASSING)
def test_no_filter_takes_a_copy_of_the_index(index: Nearest, rows: Vector, how: str) -> None:
    query = unit(rows[:4].sum(axis=0))
    passes, passages, asked = passing(how, rows, query), Passages(TEXTS), Asked(Meaning(query, index))
    passages.best(NO_WORDS, passes, asked, limit=10)

    tracemalloc.start()
    passages.best(NO_WORDS, passes, asked, limit=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < rows.nbytes / 3


def test_texts_that_are_the_same_are_all_found(index: Nearest, rows: Vector) -> None:
    passages = Passages([*TEXTS[:3], *TEXTS[:3], "not learnt yet"])
    everything = np.ones(7, dtype=np.bool_)
    found = passages.best(NO_WORDS[:7], everything, Asked(Meaning(rows[1], index)), limit=10)
    assert [at for at, _ in found] == [1, 4]


def test_of_no_passages_none_is_found(index: Nearest, rows: Vector) -> None:
    # An index of those before them is still there.
    none = np.ones(0, dtype=np.bool_)
    assert Passages([]).best(NO_WORDS[:0], none, Asked(Meaning(rows[1], index)), limit=10) == []


def test_what_is_not_learnt_is_found_by_its_words(index: Nearest, rows: Vector) -> None:
    passages = Passages([*TEXTS[:3], "not learnt yet"])
    said = np.array([0, 0, 0, 1], dtype=np.float32)
    found = passages.best(said, np.ones(4, dtype=np.bool_), Asked(Meaning(rows[1], index)), limit=10)
    assert found == [(3, 1.0), (1, pytest.approx(1 / 1.5, abs=1e-5))]
