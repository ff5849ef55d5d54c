"""Branches as people and programs read them, whatever tools say."""

from __future__ import annotations

import io
import json

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from rich.console import Console

from llmesh import Branch, Denied, ToolFailed
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.retrieval.v1.retrieval_pb2 import Passage, RetrieveResponse
from llmesh.cli.fanout_show import Branches, branch_value, ending, summary_value

TOOL = "acme.tea.v1.Tea"


def shown(*branches: Branch[Message]) -> str:
    table = Branches()
    for each in branches:
        table.add(each)
    out = io.StringIO()
    Console(file=out, width=240, highlight=False).print(table)
    return out.getvalue()


def answered(*texts: str, method: str = "A", ended: bool = True) -> Branch[Message]:
    answers = tuple(RetrieveResponse(passages=[Passage(text=text)]) for text in texts)
    return Branch(TOOL, method, answers, ended=ended, latency_s=0.0123, attempts=1)


def failed(message: str) -> Branch[Message]:
    return Branch(TOOL, "B", (), ended=True, error=Denied(message, rule="mesh/no"), attempts=1)


def test_a_row_says_what_became_of_each() -> None:
    _, first, second = shown(answered("green"), failed("not for you")).splitlines()

    assert first.rstrip().split(maxsplit=5) == [f"{TOOL}/A", "OK", "12", "ms", "1", '{"passages": [{"text": "green"}]}']
    assert second.rstrip().split(maxsplit=5) == [f"{TOOL}/B", "PERMISSION_DENIED", "0", "ms", "1", "not for you"]


def test_a_stream_has_one_row_which_counts() -> None:
    flowing, done = answered("a", "b", ended=False), answered("c")

    assert "streams" in shown(flowing)
    assert "2 so far" in shown(flowing)
    assert "3 responses" in shown(flowing, done)
    assert shown(flowing, done).count(f"{TOOL}/A") == 1


def test_a_stream_with_an_item_that_is_none_has_failed_though_its_tool_says_otherwise() -> None:
    broken = Branch[Message](TOOL, "A", (), ended=False, error=ToolFailed("the answer is no `Tea`", reason="MALFORMED"))

    told = shown(answered("a", ended=False), broken, answered("b"))

    assert "INTERNAL" in told
    assert "the answer is no `Tea`" in told
    assert "OK" not in told


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "[bold red]loud[/]", "a\nb\x07", "\u202eback"])
def test_what_tools_say_moves_no_cursor_and_is_no_markup(text: str) -> None:
    told = shown(answered(text), failed(text))

    assert len(told.splitlines()) == 3
    assert not {"\x1b", "\x07", "\u202e"}.intersection(told)
    if "[bold" in text:
        assert told.count("[bold red]loud[/]") == 2


def test_a_long_answer_is_cut_for_people_and_whole_for_programs() -> None:
    long = answered("tea " * 1000)

    assert "..." in shown(long)
    assert "tea " * 1000 in json.dumps(branch_value(long))


def test_every_key_is_there_for_programs() -> None:
    good, bad = branch_value(answered("green")), branch_value(failed("no"))

    assert set(good) == set(bad)
    assert good["error"] is None
    assert isinstance(bad["error"], dict)
    assert (bad["error"]["code"], bad["error"]["rule"], bad["responses"]) == ("PERMISSION_DENIED", "mesh/no", [])  # pyright: ignore[reportUnknownMemberType]


def test_an_answer_of_a_type_that_is_not_known_says_its_type() -> None:
    unknown = Branch[Message](TOOL, "A", (Any(type_url="type.googleapis.com/acme.X", value=b"\xff"),), ended=True)

    assert branch_value(unknown)["responses"] == [{"@type": "type.googleapis.com/acme.X"}]


@pytest.mark.parametrize(
    "odd",
    [
        pb.Branch(responses=[Any(type_url="type.googleapis.com/acme.X", value=b"\xff")]),
        pb.Branch(responses=[Any(type_url="no url", value=b"")]),
        pb.Branch(latency=Duration(seconds=1 << 62)),
    ],
    ids=["of an unknown type", "of none", "of no time"],
)
def test_an_answer_that_is_no_json_says_its_type_and_spoils_no_other(odd: pb.Branch) -> None:
    told = Branch[Message](TOOL, "A", (odd,), ended=True)

    assert branch_value(told)["responses"] == [{"@type": "type.googleapis.com/llmesh.api.mesh.v1.Branch"}]
    assert f"{TOOL}/B" in shown(told, failed("no"))


def test_the_end_is_a_sentence_of_what_there_was() -> None:
    summary = pb.Summary(
        end=pb.Summary.END_DEADLINE,
        answered_count=2,
        cancelled_count=1,
        denied_count=3,
        denied=["acme.X/Y"],
        unasked_count=1,
    )

    assert str(ending(summary)) == "2 answered, 1 cancelled, 3 denied to you, 1 not asked: its time is up"
    assert summary_value(summary)["denied"] == ["acme.X/Y"]
    assert "merged" not in summary_value(summary)
