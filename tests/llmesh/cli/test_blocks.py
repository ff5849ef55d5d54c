"""Stopping things from the command line: what is asked for, what is told, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.llmesh.cli.command import Command

TICKETS = "acme.support.v1.Tickets"
TARGETS = [
    (TICKETS, {"tool": TICKETS}),
    (f"{TICKETS}/Get", {"method": f"{TICKETS}/Get"}),
    (f"/{TICKETS}/Get", {"method": f"{TICKETS}/Get"}),
    ("support", {"domain": "support"}),
    ("dev:ana", {"caller": {"issuer": "dev", "subject": "ana"}}),
    ("corp:https://a.example/b:c", {"caller": {"issuer": "corp", "subject": "https://a.example/b:c"}}),
]


@pytest.fixture
def operator(signed_in: Command) -> Iterator[Command]:
    """Somebody who may block; what they blocked is unblocked again."""
    yield signed_in
    for block in signed_in("blocks", "--json").json["blocks"]:
        [(kind, name)] = block["target"].items()
        signed_in("unblock", f"{name['issuer']}:{name['subject']}" if kind == "caller" else name)


@pytest.mark.parametrize(("text", "target"), TARGETS, ids=[text for text, _ in TARGETS])
def test_what_is_named_is_blocked_and_unblocked(operator: Command, text: str, target: object) -> None:
    blocked = operator("block", text, "--reason", "it leaks", "--json")
    listed = operator("blocks", "--json")
    unblocked = operator("unblock", text, "--reason", "mended", "--json")
    again = operator("unblock", text, "--json")

    assert (blocked.code, unblocked.code, again.code) == (0, 0, 0)
    assert (blocked.json["block"]["target"], blocked.json["block"]["reason"]) == (target, "it leaks")
    assert blocked.json["in_force"] is True
    assert listed.json["blocks"] == [blocked.json["block"]]
    assert unblocked.json["block"] == blocked.json["block"]
    assert "block" not in again.json


def test_people_are_told_what_was_done(operator: Command) -> None:
    assert operator("block", TICKETS, "--reason", "it leaks").out == f"blocked: {TICKETS}\n"
    table = operator("blocks").out
    for word in (TICKETS, "2027-01-15T08:00:00Z", "no end", "dev:[pia]", "it leaks"):
        assert word in table
    assert operator("unblock", TICKETS).out == f"unblocked: {TICKETS}\n"
    assert operator("unblock", TICKETS).out == f"{TICKETS} was not blocked\n"
    assert operator("blocks").out == "nothing that you may know of is blocked\n"


def test_a_block_that_ends_by_itself_says_when(operator: Command) -> None:
    told = operator("block", TICKETS, "--reason", "it leaks", "--until", "2100-01-01T01:00:00+01:00")
    assert told.out == f"blocked until 2100-01-01T00:00:00Z: {TICKETS}\n"
    assert "2100-01-01T00:00:00Z" in operator("blocks").out


def test_a_cut_tells_what_it_ended_and_where_calls_go_on(operator: Command) -> None:
    told = operator("block", TICKETS, "--reason", "it leaks", "--cut").out.splitlines()
    assert told == [
        f"blocked: {TICKETS}; Envoy has not said yet that it knows: see `llmesh status`",
        "open calls that were ended: 3",
        "not cut: calls that are open at [::1]:9000 go on; to end them, restart what serves there",
    ]


def test_all_that_is_blocked_and_was_done_is_listed_over_pages(operator: Command) -> None:
    names = [f"acme.support.v{number}.Tickets" for number in range(5)]
    for name in names:
        operator("block", name, "--reason", "it leaks")

    listed = operator("blocks", "--json").json["blocks"]
    history = operator("blocks", "--history", "--limit", "3", "--json").json["changes"]

    assert [block["target"]["tool"] for block in listed] == names
    assert [change["block"]["target"]["tool"] for change in history] == names[:1:-1]
    operator("unblock", names[0], "--reason", "[mended]")
    table = operator("blocks", "--history", "--limit", "1").out
    for word in ("unblocked", names[0], "[mended]"):
        assert word in table


@pytest.mark.parametrize("target", ["", ":", "dev:", ":ana"])
def test_what_names_nothing_is_a_sentence(operator: Command, target: str) -> None:
    told = operator("block", target, "--reason", "it leaks")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith(f"error: `{target}` names nothing that can be blocked\n  give one of TOOL|METHOD|")
    assert operator("blocks", "--json").json["blocks"] == []


def test_what_the_mesh_does_not_know_is_blocked_only_when_told_so(operator: Command) -> None:
    refused = operator("block", "acme.X", "--reason", "it leaks")
    assert (refused.code, refused.out) == (1, "")
    assert "the mesh knows no tool `acme.X`" in refused.err
    assert operator("block", "acme.X", "--reason", "it leaks", "--unknown").code == 0


def test_a_program_reads_why_nothing_was_blocked(operator: Command) -> None:
    refused = operator("block", "acme.X", "--reason", "it leaks", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert '"code": "NOT_FOUND"' in refused.err


def test_a_reason_must_be_given(operator: Command) -> None:
    assert operator("block", TICKETS).code == 2
    assert operator("blocks", "--json").json["blocks"] == []


def test_a_time_that_is_none_blocks_nothing(operator: Command) -> None:
    told = operator("block", TICKETS, "--reason", "it leaks", "--until", "soon")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: `soon` is no time\n")
    assert operator("blocks", "--json").json["blocks"] == []


def test_who_meets_a_block_is_led_to_who_placed_it(operator: Command) -> None:
    met = operator("call", "acme.testing.v1.Echo/Unary", '{"text": "blocked"}')
    assert met.code == 1
    assert "the tool is blocked: it leaks" in met.err
    assert "see who stopped it, and until when: llmesh blocks" in met.err
    assert "see who you are" not in met.err
