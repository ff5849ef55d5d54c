"""Text as the words that tools are found by."""

from __future__ import annotations

import pytest

from gateway.search.words import tokens


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
