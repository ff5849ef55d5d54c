"""What is on the mesh, as people and as programs read it."""

from __future__ import annotations

import io
import socket
from contextlib import suppress
from threading import Thread

import pytest
from rich.console import Console

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.cli import show
from llmesh.home import Home
from tests.llmesh.cli.command import Command
from tests.llmesh.cli.stand_in import ESCAPE


def test_every_page_is_listed(signed_in: Command) -> None:
    answer = signed_in("tools", "list")
    assert answer.code == 0
    assert "acme.testing.v1.Echo" in answer.out
    assert "acme.escape.v1.Escape" in answer.out
    assert "1/2" in answer.out
    assert "Answers with what it was sent." in answer.out


def test_a_domain_narrows_the_list(signed_in: Command) -> None:
    answer = signed_in("tools", "list", "--domain", "testing", "--json")
    assert [tool["service"] for tool in answer.json["tools"]] == ["acme.testing.v1.Echo"]
    assert answer.err == ""


def test_an_empty_list_says_so(signed_in: Command) -> None:
    assert "no tool of the domain `nobody's`" in signed_in("tools", "list", "--domain", "nobody's").out


def test_a_tool_is_shown_with_calls_to_copy(signed_in: Command) -> None:
    answer = signed_in("tools", "show", "acme.testing.v1.Echo")
    assert "deprecated, until 2030-01-31; instead: acme.B" in answer.out
    assert "99.9000% available" in answer.out
    assert "1 of 2 ready" in answer.out
    assert "Erase (destructive, you may not call it)" in answer.out
    assert "llmesh call acme.testing.v1.Echo/Unary '{\"text\": \"it'\\''s\"}'" in answer.out


def test_a_method_without_an_example_is_shown_with_a_call_to_fill_in(signed_in: Command) -> None:
    told = signed_in("tools", "show", "acme.testing.v1.Echo").out
    assert "To fill in:\n    llmesh call acme.testing.v1.Echo/ServerStream '{\"" in told
    assert "To fill in:\n    llmesh call acme.testing.v1.Echo/Erase '{}'\n" in told


def test_a_tool_whose_contract_cannot_be_had_is_shown_all_the_same(signed_in: Command) -> None:
    answer = signed_in("tools", "show", ESCAPE)
    assert (answer.code, answer.out.splitlines()[0].split()[0]) == (0, ESCAPE)


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "acme.testing.v1.Echo"), ("prompts", "acme.testing.v1.Echo")]
)
def test_what_is_piped_has_no_line_filled_up_with_spaces(signed_in: Command, arguments: tuple[str, ...]) -> None:
    lines = signed_in("tools", *arguments).out.splitlines()
    assert len(lines) > 2
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_tool_is_shown_to_programs(signed_in: Command) -> None:
    assert signed_in("tools", "show", "acme.testing.v1.Echo", "--json").json["owner_team"] == "Test Bench"


def test_prompts_of_a_tool_are_shown_as_they_are(signed_in: Command) -> None:
    told = signed_in("tools", "prompts", "acme.testing.v1.Echo").out
    for part in ("greet", "ab" * 32, "acme.testing.v1.Echo/Unary", "Greet [them]."):
        assert part in told
    assert "answers by no prompt" in signed_in("tools", "prompts", "llmesh.api.catalog.v1.CatalogService").out


def test_an_unknown_tool_is_a_sentence(signed_in: Command) -> None:
    answer = signed_in("tools", "show", "acme.X")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: tool `acme.X` is not on the mesh (NOT_FOUND")
    assert answer.err.endswith("\n  see what there is: llmesh tools list\n")


def test_what_would_become_of_a_call_is_a_sentence_and_an_exit_code(signed_in: Command) -> None:
    allowed = signed_in("tools", "may", "acme.testing.v1.Echo/Echo")
    denied = signed_in("tools", "may", "acme.testing.v1.Echo/Other")

    assert (allowed.code, allowed.out) == (0, "allowed: only Echo [of Echo] (mesh/echo)\n")
    assert (denied.code, denied.out) == (1, "denied: only Echo [of Echo] (mesh/echo)\n")
    assert signed_in("tools", "may", "acme.testing.v1.Echo.Echo", "--json").json["outcome"] == "OUTCOME_ALLOWED"
    assert "is not a method" in signed_in("tools", "may", "Echo").err


def test_a_search_shows_scores(signed_in: Command) -> None:
    assert "1.50" in signed_in("tools", "search", "what", "it").out
    assert signed_in("tools", "search", "what", "--json").json["results"][0]["score"] == 1.5
    assert "nothing that you may see fits `x y`" in signed_in("tools", "search", "x", "y").out


def test_a_search_says_why_only_words_were_compared(signed_in: Command) -> None:
    assert signed_in("tools", "search", "what").out.endswith("by words alone: the model server is [away]\n")
    assert signed_in("tools", "search", "what", "--json").json["words_alone"] == "the model server is [away]"


def test_why_names_the_step_that_failed(signed_in: Command) -> None:
    answer = signed_in("tools", "why", "50051")
    assert "127.0.0.1:50051  refused  (from file)" in answer.out
    assert "NOT_OWNER acme.other.v1.X  `acme.other` is not yours" in answer.out
    assert signed_in("tools", "why", "--json").json["endpoints"][0]["state"] == "STATE_REFUSED"


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        ("acme.testing.v1.Echo", "unix:/mesh/run/tools/echo-7.sock"),
        ("acme.testing", "unix:/mesh/run/tools/echo-7.sock"),
        ("ECHO", "unix:/mesh/run/tools/echo-7.sock"),
        ("echo", "unix:/mesh/run/tools/echo-7.sock"),
        ("acme.other.v1.X", "127.0.0.1:50051"),
    ],
)
def test_why_takes_a_tool_a_package_and_a_process(signed_in: Command, wanted: str, address: str) -> None:
    found = signed_in("tools", "why", wanted, "--json").json["endpoints"]
    assert [endpoint["address"] for endpoint in found] == [address]


def test_why_takes_no_part_of_a_tools_name(signed_in: Command) -> None:
    assert signed_in("tools", "why", "acme.testing.v1.Ec").code == 1


def test_the_platforms_own_tools_are_listed_when_asked_for(signed_in: Command) -> None:
    assert "CatalogService" not in signed_in("tools", "list").out
    assert "CatalogService" in signed_in("tools", "list", "--all").out
    assert "CatalogService" in signed_in("tools", "list", "--domain", "platform").out


def test_what_a_tool_does_is_below_it_where_the_terminal_is_narrow() -> None:
    tools = [
        pb.Tool(service="acme.A", domain="a", summary="Says what it does, at some length.", endpoint_count=1),
        pb.Tool(service="acme.long.B", domain="other", summary="Short.", ready_count=1, endpoint_count=1),
    ]
    console = Console(width=30, soft_wrap=True, file=io.StringIO(), color_system=None)
    with console.capture() as said:
        console.print(show.tools_table(tools))
    assert [line.rstrip() for line in said.get().splitlines()] == [
        "acme.A       a      0/1",
        "  Says what it does, at some",
        "  length.",
        "acme.long.B  other  1/1",
        "  Short.",
    ]


def test_why_of_an_unknown_endpoint_says_who_may_ask(signed_in: Command) -> None:
    answer = signed_in("tools", "why", "10.0.0.1:1")
    assert answer.code == 1
    assert "the mesh knows no tool or endpoint `10.0.0.1:1`" in answer.err
    assert "--role platform" in answer.err


def test_a_token_from_the_environment_needs_no_login(
    command: Command, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMESH_TOKEN", "from-elsewhere")
    assert command("tools", "list", "--address", mesh).code == 0


def test_no_mesh_directory_is_a_sentence(command: Command, mesh: str) -> None:
    answer = command("tools", "list", "--address", mesh)
    assert answer.code == 1
    assert "there is no mesh directory at" in answer.err
    assert "llmesh up" in answer.err


def test_no_mesh_is_a_sentence(signed_in: Command) -> None:
    answer = signed_in("tools", "list", "--address", "127.0.0.1:1")
    assert answer.code == 1
    assert answer.err == (
        "error: nobody answers at the mesh's address: Connection refused\n"
        "  start a mesh here (llmesh up), or say where it is (--address; https:// where it speaks TLS)\n"
    )


def test_a_token_never_leaves_the_machine_in_the_clear(signed_in: Command) -> None:
    def hang_up() -> None:
        with listening, suppress(OSError):
            while True:
                caller, _ = listening.accept()
                with caller:
                    caller.settimeout(60)
                    heard.append(caller.recv(4096))

    heard: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))
    # By this name, it is no address of this machine alone.
    address = f"0.0.0.0:{listening.getsockname()[1]}"
    thread = Thread(target=hang_up)
    thread.start()
    try:
        answer = signed_in("tools", "list", "--address", address)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (answer.code, answer.out) == (1, "")
    # The beginning of a TLS handshake: RFC 8446, 5.1.
    assert heard
    assert all(said.startswith(b"\x16\x03") for said in heard)


@pytest.mark.parametrize("token", ["", "from-elsewhere"])
def test_no_token_goes_to_whoever_listens_where_the_mesh_is_not_up(
    signed_in: Command, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.delenv("LLMESH_ADDRESS")
    monkeypatch.setenv("LLMESH_TOKEN", token)
    answer = signed_in("tools", "list")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"error: no mesh is up at `{Home.find().path}`\n  start one: llmesh up; or say where it is: --address\n"
    )
