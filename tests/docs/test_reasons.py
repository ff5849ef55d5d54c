"""What a program can read of a refusal of the mesh's own is on the page for those who call."""

from __future__ import annotations

import re

from tests.docs.reader import REPO

# How the parts that refuse calls of tools write a reason, in Python and in Lua.
REASON = re.compile(r"reason=\"([A-Z]+(?:_[A-Z]+)*)\"|(?<!=)(?<!: )\"((?:[A-Z]+_)+[A-Z]+)\",")
REFUSING = ("gateway/snapshot", "gateway/listener")


def test_every_reason_by_which_the_mesh_refuses_a_call_is_on_the_clients_page() -> None:
    page = (REPO / "docs/client.md").read_text()
    sources = [path for folder in REFUSING for path in (REPO / folder).iterdir() if path.suffix in {".py", ".lua"}]

    given = {one or other for path in sources for one, other in REASON.findall(path.read_text())}

    assert {"TOKEN_EXPIRED", "BLOCKED", "DELEGATION_LOOP", "TOO_MANY_BAD_TOKENS"} <= given
    assert {reason for reason in given if f"`{reason}`" not in page} == set()
