"""What vanishes in a mass is kept; what goes by itself, or is given back, is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sources.hold import HOLD_S, LEAST, WINDOW_S, Hold

TEN = frozenset("abcdefghij")


def shown(hold: Hold) -> frozenset[str]:
    return hold.named | hold.kept


@pytest.mark.parametrize("waits", [True, False], ids=["one after another", "all at once"])
def test_more_than_half_that_vanish_at_once_are_held_until_they_return(*, waits: bool) -> None:
    hold = Hold(waits=waits)
    hold.see(TEN, now_s=0)
    assert hold.see(frozenset("abcd"), now_s=100)
    assert hold.held == frozenset("efghij")
    assert not hold.see(frozenset("abcde"), now_s=101)
    assert hold.held == frozenset("fghij")
    hold.pass_time(100 + HOLD_S)
    assert shown(hold) == frozenset("abcde")


def test_half_may_go() -> None:
    hold = Hold(waits=False)
    hold.see(TEN, now_s=0)
    assert not hold.see(frozenset("abcde"), now_s=100)
    assert shown(hold) == frozenset("abcde")


def test_a_few_are_no_mass() -> None:
    hold = Hold(waits=False)
    hold.see(frozenset("abc"), now_s=0)
    assert not hold.see(frozenset(), now_s=1)
    assert shown(hold) == frozenset()


def test_those_whose_place_others_take_may_go() -> None:
    hold = Hold(waits=False)
    hold.see(TEN, now_s=0)
    assert not hold.see(frozenset("ABCDEFGHIJ"), now_s=100)
    assert shown(hold) == frozenset("ABCDEFGHIJ")


def test_those_that_go_one_after_another_are_a_mass_if_they_go_soon() -> None:
    hold = Hold(waits=True)
    hold.see(TEN, now_s=0)
    left = [hold.see(TEN - frozenset(sorted(TEN)[: gone + 1]), now_s=100 + gone) for gone in range(6)]
    assert left == [False] * 5 + [True]
    assert shown(hold) == TEN


def test_those_that_go_slowly_go() -> None:
    hold = Hold(waits=True)
    hold.see(TEN, now_s=0)
    for gone in range(10):
        assert not hold.see(TEN - frozenset(sorted(TEN)[: gone + 1]), now_s=WINDOW_S * (gone + 1))
    hold.pass_time(WINDOW_S * 11)
    assert shown(hold) == frozenset()


ADDRESSES = st.frozensets(st.sampled_from(sorted(TEN)))
# After how long, what is named then, and what was given back.
STEPS = st.lists(st.tuples(st.floats(0, 30), ADDRESSES, ADDRESSES), max_size=30)


@given(STEPS, st.builds(Hold, waits=st.booleans()))
def test_what_is_named_is_shown_what_is_given_back_is_not_and_most_are_never_lost_at_once(
    steps: list[tuple[float, frozenset[str], frozenset[str]]], hold: Hold
) -> None:
    now_s = 0.0
    # Since when each is no longer named.
    since: dict[str, float] = {}
    for span_s, named, released in steps:
        now_s += span_s
        before = shown(hold)
        hold.see(named, now_s=now_s, released=released)
        assert named <= shown(hold)
        assert not released & shown(hold) - named
        lost = {each for each in before - shown(hold) - released if now_s - since.get(each, now_s) < WINDOW_S}
        assert len(lost) < LEAST or 2 * len(lost) <= len(before | named)
        since = {each: since.get(each, now_s) for each in TEN - named}
    hold.pass_time(now_s + HOLD_S + WINDOW_S)
    assert shown(hold) == hold.named
    assert hold.next_s() is None
