"""Expressions cut down: all that they match, the contract's match too, and nothing is longer than it may be."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmesh.schema.pattern import ANY, ASCII, bounded, repeated
from tests.llmesh.schema.instances import NAMED

# Enough of them to try: hypothesis lists all that a class holds.
SOME = (*ASCII, (0xE0, 0xFF), (0x1F600, 0x1F64F))

CUT = {
    "anchored": ("^[a-z]+$", "[a-z]{1,9}"),
    "not anchored": ("b", f"{NAMED}{{0,4}}b{NAMED}{{0,4}}"),
    "anchored at one end": (r"\Ab", f"b{NAMED}{{0,8}}"),
    "open already": ("^.*$", f"{NAMED}{{0,9}}"),
    "ends of RE2": (r"\Aa\z", "a"),
    "alternatives": ("^a$|^bc$", "(a|bc)"),
    "a group": ("^(?:ab)*$", "(ab){0,4}"),
    "a named group": ("^(?P<name>ab)$", None),
    "a bounded repeat": ("^a{2,500}$", "a{2,9}"),
    "an exact repeat": ("^a{3}$", "a{3}"),
    "an open repeat": ("^a{2,}$", "a{2,9}"),
    "lazy": ("^a+?$", "a{1,9}"),
    "maybe": ("^ab?$", "ab{0,1}"),
    "classes": (r"^\d\w$", "[0-9][0-9A-Z_a-z]"),
    "space of a line only": (r"^a\sb$", "a b"),
    "not a class": (r"^\D$", NAMED.replace("#-", "#-/:-")),
    "a class without what JSON escapes": ("^[ -~]$", r"[ !#-\[\]-~]"),
    "a class of nothing else": (r'^["\\]$', None),
    "a needed quote": ('^a"b$', None),
    "escapes": (r"^\.\x41\-\/$", r"\.A-/"),
    "a bracket first": ("^[]a]$", r"[\]a]"),
    "a dash last": ("^[a-]$", r"[\-a]"),
    "a range of many scripts": ("^[ぁ-ん]$", "[ぁ-ん]"),
    "classes of Unicode": (r"^\pL+$", None),
    "word ends": (r"^a\bb$", None),
    "an anchor inside": ("^a^b$", None),
    "a look ahead": ("^(?=a)a$", None),
    "flags": ("(?i)^a$", None),
    "a reference": (r"^(a)\1$", None),
    "named classes": ("^[[:alpha:]]$", None),
    "a stray brace": ("^a{$", None),
    "two repeats": ("^a**$", None),
    "an open group": ("^(a$", None),
    "an open class": ("^[a$", None),
    "a closed group": ("^a)$", None),
    "a range that goes back": ("^[z-a]$", None),
    "too long in itself": ("^" + "a" * 1001, None),
    "groups without end": ("^" + "(" * 500 + ")" * 500 + "$", None),
}


@pytest.mark.parametrize(("pattern", "cut"), CUT.values(), ids=CUT)
def test_an_expression_is_cut_down_or_known_to_be_unsafe(pattern: str, cut: str | None) -> None:
    found = bounded(pattern, low=0, high=9, most=9, allowed=ANY)
    assert (found and found.text) == cut


def test_a_least_length_makes_repeats_longer() -> None:
    found = bounded("^[a-z]+-[0-9]*$", low=7, high=12, most=12, allowed=ANY)
    assert found is not None
    assert found.text == "[a-z]{3,5}-[0-9]{3,5}"


def test_what_cannot_be_made_short_may_be_as_long_as_the_contract_lets_it() -> None:
    uuid = "^[0-9a-f]{32}$"
    assert bounded(uuid, low=0, high=10, most=None, allowed=ANY) is not None
    assert bounded(uuid, low=0, high=10, most=40, allowed=ANY) is not None
    assert bounded(uuid, low=0, high=10, most=31, allowed=ANY) is None
    assert bounded("^(a{1000}){1000}$", low=0, high=10, most=None, allowed=ANY) is None


def test_bytes_are_counted_by_the_widest_character() -> None:
    for pattern, allowed, expected in (("^[a-z]*$", ANY, 5), ("^.*$", ANY, 20), ("^.*$", ASCII, 5)):
        found = bounded(pattern, low=0, high=5, most=5, allowed=allowed)
        assert found is not None
        assert found.max_bytes == expected


ATOMS = st.sampled_from(["a", ".", "[a-c]", "[^a]", r"\d", r"\w", r"\s", r"\.", "é", "[ -~]"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=5,
)


ANCHORS = st.sampled_from([("", ""), ("^", ""), ("", "$"), ("^", "$")])


@given(expression=EXPRESSIONS, anchors=ANCHORS, low=st.integers(0, 4), data=st.data())
def test_whatever_matches_the_cut_matches_the_contracts(
    expression: str, anchors: tuple[str, str], low: int, data: st.DataObject
) -> None:
    pattern = expression.join(anchors)
    found = bounded(pattern, low=low, high=8, most=8, allowed=SOME)
    if found is None:
        return
    text = data.draw(st.from_regex(found.text, fullmatch=True))
    assert re.search(pattern, text)
    assert low <= len(text) <= 8
    assert len(text.encode()) <= found.max_bytes


@given(st.integers(0, 400), st.integers(0, 400), st.data())
def test_a_repeat_in_blocks_is_any_number_from_its_least_to_its_most_and_no_other(
    least: int, more: int, data: st.DataObject
) -> None:
    most = max(1, least + more)
    pattern = repeated("(ab)", least, most)
    times = data.draw(st.integers(0, most + 1) | st.sampled_from([max(0, least - 1), least, most, most + 1]))
    assert bool(re.fullmatch(pattern, "ab" * times)) == (least <= times <= most), pattern
    assert all(int(number) <= 128 for number in re.findall(r"(\d+)\}", pattern))
