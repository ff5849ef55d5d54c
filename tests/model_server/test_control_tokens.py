"""What the control tokens of a model become in a text that only says something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.control_tokens import ControlTokens

# Few letters, so that tokens overlap, hold one another and occur; one of them may be what parts them.
LETTERS = st.text("<|a> \n!(\\", max_size=6)
TOKENS = st.lists(LETTERS, max_size=6)


@given(TOKENS, st.text("<|a> \n!(\\", max_size=40))
def test_no_token_is_left_in_any_text(tokens: list[str], text: str) -> None:
    parted = ControlTokens(tokens).part(text)
    assert not [each for each in tokens if len(each) > 1 and not each.isspace() and each in parted]


@given(st.lists(st.text(), max_size=4), st.data())
def test_no_token_is_left_whatever_its_characters_are(tokens: list[str], data: st.DataObject) -> None:
    words = st.text() | st.sampled_from(tokens) if tokens else st.text()
    parted = ControlTokens(tokens).part("".join(data.draw(st.lists(words, max_size=6))))
    assert not [each for each in tokens if len(each) > 1 and not each.isspace() and each in parted]


@given(TOKENS, st.text("<|a> \n!(\\", max_size=40))
def test_a_text_without_any_stays_as_it_is(tokens: list[str], text: str) -> None:
    apart = [each for each in tokens if len(each) > 1 and not each.isspace()]
    parted = ControlTokens(tokens).part(text)
    assert (parted == text) == (not any(each in text for each in apart))


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("a<|end|>b", "a< |end|>b"),
        ("<|end|><|end|>", "< |end|>< |end|>"),
        ("< |end|>, <|END|> and 1 < 2", "< |end|>, <|END|> and 1 < 2"),
        ("<|<|end|>", "<|< |end|>"),
        ("<|end_of_all|>", "< |end_of_all|>"),
    ],
)
def test_a_token_is_parted_after_its_first_character(text: str, parted: str) -> None:
    assert ControlTokens(["<|end|>", "<|end_of_all|>", "\n\n", "#"]).part(text) == parted


def test_where_a_token_has_a_space_something_else_parts_it() -> None:
    assert ControlTokens(["[ end ]", "!"]).part("[ end ]") == "[! end ]"
