"""Who names a tool that is not there reads what may have been meant."""

from __future__ import annotations

import pytest

from llmesh.cli.nearest import nearest

KNOWN = ("acme.engineering.v1.DocSearch", "acme.support.v1.Tickets")


@pytest.mark.parametrize(
    ("service", "method", "words"),
    [
        pytest.param(
            "acme.engineering.v1", "DocSearch", ": `acme.engineering.v1.DocSearch` is the tool", id="no method"
        ),
        pytest.param("DocSearch", "Retrieve", " (nearest: `acme.engineering.v1.DocSearch`)", id="the end of a name"),
        pytest.param(
            "acme.engineering.v1.DocSerch", "Retrieve", " (nearest: `acme.engineering.v1.DocSearch`)", id="typo"
        ),
        pytest.param("com.example.Weather", "Get", "", id="nothing like it"),
    ],
)
def test_what_may_have_been_meant_is_named(service: str, method: str, words: str) -> None:
    found = nearest(service, method, KNOWN)
    assert found.startswith(words) if words else found == ""
