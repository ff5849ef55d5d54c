"""Whole numbers as text, between two bounds."""

import re

from hypothesis import given
from hypothesis import strategies as st

from llmesh.schema.digits import between

NUMBERS = st.integers(-2000, 2000) | st.integers(-(2**63), 2**64 - 1)


@given(bounds=st.tuples(NUMBERS, NUMBERS).map(sorted), value=NUMBERS, near=st.integers(-20, 20))
def test_exactly_the_numbers_between_match(bounds: list[int], value: int, near: int) -> None:
    low, high = bounds
    pattern = re.compile(between(low, high))
    for each in (value, low, high, low - 1, high + 1, low + near, high + near, 0):
        assert bool(pattern.fullmatch(str(each))) == (low <= each <= high), each


@given(bounds=st.tuples(NUMBERS, NUMBERS).map(sorted))
def test_no_number_has_needless_zeros_or_a_sign_of_zero(bounds: list[int]) -> None:
    pattern = re.compile(between(*bounds))
    for text in ("00", "-0", "01", "-01", "+1", ""):
        assert not pattern.fullmatch(text)


def test_as_many_digits_as_always_fit_are_short_to_say() -> None:
    assert between(1 - 10**18, 10**18 - 1) == "(-[1-9][0-9]{0,17}|0|[1-9][0-9]{0,17})"
    assert between(0, 10**19 - 1) == "(0|[1-9][0-9]{0,18})"
