"""Page tokens that clients bend."""

from __future__ import annotations

import base64

import pytest

from gateway.services.paging import last_of, page_token
from llmesh.errors import InvalidCall


def test_token_leads_back_to_the_last_name() -> None:
    assert last_of(page_token("acme.support.v1.Tickets", listing="all"), listing="all") == "acme.support.v1.Tickets"


def test_no_token_is_the_first_page() -> None:
    assert last_of("", listing="all") == ""


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("x", id="too short"),
        pytest.param("!!!!", id="not base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param(page_token("a", listing="other"), id="of another listing"),
        pytest.param(page_token("a", listing="all") + "=", id="padded"),
        pytest.param(page_token("a", listing="all")[:-1] + "A", id="one letter changed"),
        pytest.param(base64.urlsafe_b64encode(b"123456\xff\xff").decode(), id="not UTF-8"),
    ],
)
def test_token_that_was_bent_is_an_invalid_call(token: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        last_of(token, listing="all")
    assert [violation.field for violation in caught.value.violations] == ["page_token"]
