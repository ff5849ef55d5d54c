"""Calling any method with JSON: every shape, and what is said when it can't be."""

from __future__ import annotations

import json

import pytest

from llmesh import Unavailable
from llmesh.cli.edge import failure_of, problem_of
from tests.llmesh.cli.command import Command

ECHO = "acme.testing.v1.Echo"


def test_a_call_takes_and_gives_json(signed_in: Command) -> None:
    answer = signed_in(
        "call", f"{ECHO}/Unary", '{"text": "grüße", "items": [{"name": "a"}], "itemsByName": {"x": {"name": "b"}}}'
    )
    assert answer.code == 0
    assert (answer.json["text"], answer.json["items"]) == ("grüße", [{"name": "a"}])
    assert answer.err == ""


def test_a_request_left_out_is_empty(signed_in: Command) -> None:
    assert signed_in("call", f"{ECHO}/WhoAmI").code == 0


@pytest.mark.parametrize("written", [f"{ECHO}/Unary", f"/{ECHO}/Unary", f"{ECHO}.Unary"])
def test_a_method_may_be_written_as_people_know_it(signed_in: Command, written: str) -> None:
    assert signed_in("call", written, '{"text": "a"}').json["text"] == "a"


def test_a_request_may_come_from_stdin(signed_in: Command) -> None:
    assert signed_in("call", f"{ECHO}/Unary", "-", stdin='{\n  "text":\n "a"\n}\n').json["text"] == "a"


def test_a_stream_of_answers_is_a_line_each(signed_in: Command) -> None:
    lines = signed_in("call", f"{ECHO}/ServerStream", '{"text": "a", "count": 3}').out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "a"}, {"text": "a", "index": 1}, {"text": "a", "index": 2},
    ]  # fmt: skip


REQUESTS = {
    "an array": '[{"text": "a"}, {"text": "b"}]',
    "one after another": '{"text": "a"} {"text": "b"}',
    "a line each": '{"text": "a"}\n{"text": "b"}\n',
    "over lines": '{\n"text": "a"}{"text":\n"b"}',
}


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("from_stdin", [True, False], ids=["stdin", "argument"])
def test_a_stream_of_requests_is_sent(signed_in: Command, requests: str, from_stdin: bool) -> None:  # noqa: FBT001
    answer = signed_in("call", f"{ECHO}/ClientStream", "-" if from_stdin else requests, stdin=requests)
    assert (answer.json["text"], answer.json["count"]) == ("a b", 2)


def test_streams_both_ways(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Bidi", "-", stdin='{"text": "a"}\n{"text": "b"}\n')
    assert answer.out == '{"text":"a"}\n{"text":"b"}\n'


def test_an_empty_stream_of_requests_is_one(signed_in: Command) -> None:
    assert signed_in("call", f"{ECHO}/Bidi", "[]").out == ""


def test_what_an_answers_reader_must_be_told_is_shown_beside_it(signed_in: Command) -> None:
    request = '{"text": "a", "orders": {"cite": {"warning": "random weights"}}}'
    answer = signed_in("call", f"{ECHO}/Unary", request)
    assert (answer.json["text"], answer.err) == ("a", f"warning: {ECHO}/Unary: random weights\n")
    answer = signed_in("call", f"{ECHO}/Unary", request, "--json")
    assert json.loads(answer.err) == {"warning": f"{ECHO}/Unary: random weights"}


def test_answers_before_a_failure_are_shown(signed_in: Command) -> None:
    failing = '{"text": "a", "count": 1, "orders": {"status": {"code": 10, "message": "changed meanwhile"}}}'
    answer = signed_in("call", f"{ECHO}/ServerStream", failing)
    assert (answer.code, answer.out) == (1, '{"text":"a"}\n')
    assert answer.err == "error: changed meanwhile (ABORTED, CONFLICT)\n"


def test_for_programs_every_answer_is_one_line(signed_in: Command) -> None:
    assert signed_in("call", f"{ECHO}/Unary", '{"text": "a"}', "--json").out == '{"text":"a"}\n'


def test_a_refusal_names_code_reason_rule_and_call(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Erase")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.splitlines()[0] == (
        "error: only owners erase (PERMISSION_DENIED, NO_RULE_PERMITS, rule mesh/destructive, call call-7)"
    )


def test_fields_that_break_the_contract_are_named(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", json.dumps({"text": "a" * 1001, "items": [{}]}))
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert lines[0].startswith("error: `text` must be at most 1000 characters (INVALID_ARGUMENT")
    assert lines[1:] == ["  items[0].name: must be at least 1 characters"]


def test_the_one_field_that_the_message_names_is_not_named_twice(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Bidi", '{"text": ""}')
    assert answer.err == "error: `text` must be at least 1 characters (INVALID_ARGUMENT, INVALID_CALL)\n"


def test_what_a_tool_may_not_call_is_for_its_owner_to_mend(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", '{"text": "undelegated"}')
    assert "tell the owner of the tool that made the call" in answer.err


def test_programs_get_a_failure_as_json(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Erase", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert json.loads(answer.err) == {
        "error": {
            "code": "PERMISSION_DENIED",
            "reason": "NO_RULE_PERMITS",
            "message": "only owners erase",
            "rule": "mesh/destructive",
            "violations": [],
            "call_id": "call-7",
            "retry_after_s": None,
            "next": "see who you are: llmesh login; be somebody else: --as NAME",
        }
    }


def test_people_and_programs_are_told_how_long_to_wait_and_what_to_look_at() -> None:
    starts = Unavailable("it starts", retry_after_s=2.5, reason="MODEL_NOT_READY")
    told = problem_of(starts)
    assert told.message == "it starts (UNAVAILABLE, MODEL_NOT_READY, try again in 2.5 s)"
    assert "ListModels" in told.step
    assert failure_of(starts)["retry_after_s"] == 2.5


def test_programs_get_every_field_that_breaks_the_contract(signed_in: Command) -> None:
    failure = json.loads(signed_in("call", f"{ECHO}/Bidi", '{"text": ""}', "--json").err)["error"]
    assert failure["violations"] == [
        {"field": "text", "description": "must be at least 1 characters", "rule": "string.min_len"}
    ]


def test_programs_get_what_is_wrong_here_in_the_same_shape(signed_in: Command) -> None:
    failure = json.loads(signed_in("call", "nope", "--json").err)["error"]
    assert list(failure) == ["code", "reason", "message", "rule", "violations", "call_id", "retry_after_s", "next"]
    assert (failure["code"], failure["next"]) == ("", "see what there is: llmesh tools list")


@pytest.mark.parametrize(
    ("method", "request_text", "said"),
    [
        ("Unary", '{"txt": "a"}', 'has no field named "txt"'),
        ("Unary", '{"text": 3}', "the request does not fit"),
        ("Unary", '"a"', "is a JSON object"),
        ("Unary", '{"text: "a"}', "the request is not JSON"),
        ("Unary", '{"text": "a"} nonsense', "the request is not JSON"),
        ("Unary", '{"text": "a"} {"text": "b"}', "takes one request, and there are more"),
        ("ClientStream", '{"text": "a"} {"txt": "b"}', 'has no field named "txt"'),
        ("Bidi", '{"text": "a"} {"text": 1}', "the request does not fit"),
    ],
)
def test_a_request_that_does_not_fit_is_never_a_traceback(
    signed_in: Command, method: str, request_text: str, said: str
) -> None:
    answer = signed_in("call", f"{ECHO}/{method}", request_text)
    assert answer.code == 1
    assert said in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (f"{ECHO}/Nope", "has no method `Nope`; it has Unary"),
        ("nope", "write it like acme.support.v1.Tickets/GetTicket"),
        ("a/b/c", "write it like acme.support.v1.Tickets/GetTicket"),
        ("acme.X/Y", "tool `acme.X` is not on the mesh"),
        (f"{ECHO}/Missing", "this method is missing on purpose"),
    ],
)
def test_a_method_that_is_not_there_is_a_sentence(signed_in: Command, method: str, said: str) -> None:
    answer = signed_in("call", method)
    assert answer.code == 1
    assert said in answer.err


def test_headers_are_sent(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", '{"text": "header x-one"}', "-H", "X-One: a: b", "-H", "x-two: c")
    assert answer.json["text"] == "a: b"
    assert "is no header" in signed_in("call", f"{ECHO}/Unary", "-H", "nonsense").err


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("bad header!: x", "`bad header!` is no header's name"),
        ("x: é", "the header `x` has a character that no header can hold"),
        ("x: a\nb", "the header `x` has a character that no header can hold"),
        ("x-bin: abc!", "the header `x-bin` is not base64: `abc!`"),
        ("x-bin: abcde", "the header `x-bin` is not base64: `abcde`"),
    ],
)
def test_a_header_that_cannot_be_sent_is_a_sentence(signed_in: Command, header: str, said: str) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", "-H", header)
    assert answer.code == 1
    assert answer.err.startswith(f"error: {said}\n")


@pytest.mark.parametrize("value", ["aGk=", "aGk"])
def test_a_binary_header_is_written_as_base64(signed_in: Command, value: str) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", '{"text": "header x-bin"}', "-H", f"X-Bin: {value}")
    assert answer.json["text"] == "b'hi'"


def test_a_token_is_taken_as_a_file_has_it(signed_in: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMESH_TOKEN", " abc\r\n")
    assert signed_in("call", f"{ECHO}/Unary", '{"text": "header authorization"}').json["text"] == "Bearer abc"


def test_a_token_that_cannot_be_sent_is_a_sentence(signed_in: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMESH_TOKEN", "a\nb")
    answer = signed_in("call", f"{ECHO}/Unary")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: the token is none: it holds spaces")


def test_the_caller_sends_its_token(signed_in: Command) -> None:
    request = ("call", f"{ECHO}/Unary", '{"text": "header authorization"}')
    assert signed_in(*request).json["text"].startswith("Bearer ey")


def test_a_call_ends_when_its_time_is_over(signed_in: Command) -> None:
    answer = signed_in("call", f"{ECHO}/Unary", '{"orders": {"delay": "30s"}}', "--timeout", "0.2")
    assert answer.code == 1
    assert "DEADLINE_EXCEEDED" in answer.err
    assert "--timeout" in answer.err
