"""Words and meanings as one score."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmesh.retrieval.fusing import fuse

SHARES = st.floats(0, 1, width=32)
COSINES = st.floats(-1, 1, width=32) | st.just(math.nan)
PAIRS = st.lists(st.tuples(SHARES, COSINES), min_size=1, max_size=5)


def fused(*pairs: tuple[float, float]) -> list[float]:
    shares, cosines = (np.array(each, dtype=np.float32) for each in zip(*pairs, strict=True))
    return fuse(shares, cosines).tolist()


@given(PAIRS)
def test_scores_are_shares(pairs: list[tuple[float, float]]) -> None:
    assert all(0 <= score <= 1 for score in fused(*pairs))


@given(PAIRS)
def test_a_score_does_not_hang_on_the_others(pairs: list[tuple[float, float]]) -> None:
    assert fused(*pairs) == [fused(pair)[0] for pair in pairs]


@given(SHARES, SHARES, st.floats(-1, 1, width=32))
def test_more_words_never_score_less(one: float, other: float, cosine: float) -> None:
    less, more = fused((min(one, other), cosine), (max(one, other), cosine))
    assert less <= more


@given(SHARES, st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_a_nearer_meaning_never_scores_less(share: float, one: float, other: float) -> None:
    less, more = fused((share, min(one, other)), (share, max(one, other)))
    assert less <= more


@given(SHARES)
def test_what_has_no_known_meaning_scores_as_by_words_alone(share: float) -> None:
    assert math.isclose(fused((share, math.nan))[0], share, abs_tol=1e-6)


@given(SHARES.filter(bool), COSINES)
def test_what_says_a_word_bears_on_the_query(share: float, cosine: float) -> None:
    assert fused((max(share, 1e-6), cosine))[0] > 0


def test_what_says_no_word_and_means_something_else_does_not_bear_on_the_query() -> None:
    assert fused((0, 0.1), (0, -1), (0, math.nan)) == [0, 0, 0]
    assert fused((0, 0.6))[0] > 0


def test_the_same_meaning_outweighs_all_the_words() -> None:
    meant, said = fused((0, 1), (1, 0))
    assert meant > said
