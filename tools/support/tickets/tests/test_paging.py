# ruff: noqa: RUF001 - digits that are no ASCII are what is tested
import base64

import pytest
from acme.support.v1 import tickets_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st
from tickets.paging import read_token, write_token
from tickets.ticket import Filter

from llmesh.errors import InvalidCall

OPEN = Filter(state=pb.TICKET_STATE_OPEN)


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_a_token_says_where_the_page_ended(number: int) -> None:
    assert read_token(write_token(number, OPEN), OPEN) == number


def test_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidCall, match="not of this list"):
        read_token(write_token(7, OPEN), Filter(state=pb.TICKET_STATE_CLOSED))


@given(st.text(max_size=200))
def test_anything_else_is_refused_as_a_bad_call(token: str) -> None:
    with pytest.raises(InvalidCall):
        read_token(token, OPEN)


@pytest.mark.parametrize("text", ["0.1.0", "-1.1.0", "٧.1.0", f"{2**63}.1.0", "7.1", "+7.1.0", "0007.1.0"])
def test_a_forged_token_is_refused_as_a_bad_call(text: str) -> None:
    with pytest.raises(InvalidCall):
        read_token(base64.urlsafe_b64encode(text.encode()).decode().rstrip("="), OPEN)
