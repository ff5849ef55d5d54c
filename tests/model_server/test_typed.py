"""Answers as messages: valid by their type's rules, mended once, or an error that says what is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any as Untyped
from typing import TypeVar, TypeVarTuple

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from buf.validate import validate_pb2
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.call import Call, answer
from llmesh.errors import FailedPrecondition, InvalidCall, NotFound, ToolFailed
from llmesh.schema import schema_of
from llmesh.testing import TESTER
from model_server.candidates import find_candidates
from model_server.source import ModelSource
from model_server.turns import choose_from
from model_server.type_work import LIMITS
from model_server.typed import Answer, Answering
from model_server.types import TypedType, Types
from model_server.workshop import Visit, Workshop
from tests.llmesh.schema.shapes import files, from_source, message, sent, shapes
from tests.model_server.scripted import ScriptedEngine

T = TypeVar("T")
Given = TypeVarTuple("Given")

SOURCE = ModelSource("tiny", Path(), "1", "sha256:1", warning="means nothing")
ASKED = pb.Conversation(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="What now?")])
TICKET = '{"summary":"It is broken","urgency":"URGENCY_HIGH","wait":5,"confidence":0.5}'
SPAN = """message M {
  option (buf.validate.message).cel = {
    id: "order" message: "first must not be after last" expression: "this.first <= this.last"
  };
  int32 first = 1; int32 last = 2; }"""


@pytest.fixture(autouse=True)
async def call() -> None:
    """The call that is being answered."""
    answer(Call("/model", TESTER, call_id="", remaining=lambda: None, mesh=lambda: pytest.fail("asks the mesh")))


class Here(Visit):
    """Work done in this process."""

    async def run(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """What the work gives."""
        return work(*given)


HERE = Here(Workshop(), asyncio.Lock())


async def typed(descriptor: Descriptor) -> TypedType:
    """The type, as its caller sends it."""
    return await Types(sent(descriptor), HERE).find(descriptor.full_name, field="type")


def fields_of(found: Answer, descriptor: Descriptor) -> Untyped:
    """The message of an answer."""
    made = message_factory.GetMessageClass(descriptor)()
    assert found.message.Unpack(made)
    return made


def answering(engine: ScriptedEngine, **sampling: Untyped) -> Answering:
    return Answering(SOURCE, engine, pb.Sampling(**sampling))


async def test_an_answer_is_a_message_and_says_what_it_is_from() -> None:
    engine = ScriptedEngine([TICKET])
    call = answering(engine)
    found = await call.answer(ASKED, await typed(shapes()["Ticket"]))
    said = fields_of(found, shapes()["Ticket"])
    assert (said.summary, said.urgency, found.repair_count, found.warning) == ("It is broken", 2, 0, "means nothing")
    assert found.provenance.model == "tiny"
    assert call.usage == pb.Usage(
        input_token_count=len(engine.written[0].asked.encode()), output_token_count=len(TICKET)
    )


async def test_the_model_is_held_to_the_schema_told_it_and_given_room_for_the_longest_message() -> None:
    engine = ScriptedEngine([TICKET])
    wanted = await typed(shapes()["Ticket"])
    await answering(engine).answer(ASKED, wanted)
    schema = schema_of(shapes()["Ticket"], LIMITS[0])
    (written,) = engine.written
    assert written.schema == schema.text
    assert written.sampling.max_tokens == schema.max_bytes + 1
    assert written.asked.startswith("ROLE_USER: What now?\n\nAnswer with one JSON value, a `acme.shapes.v1.Ticket`")
    assert "What the customer wants, in one sentence." in written.asked


async def test_a_prompt_is_given_as_it_is() -> None:
    engine = ScriptedEngine([TICKET])
    await answering(engine).answer("A ticket: ", await typed(shapes()["Ticket"]))
    assert engine.written[0].asked == "A ticket: "


@pytest.mark.parametrize("context", [300, 600, 1200, 3000, 100_000])
async def test_the_narrower_the_context_the_shorter_the_longest_message(context: int) -> None:
    engine = ScriptedEngine(['{"text":"a","raw":"","flag":true}'], context_length=context)
    wanted = message("message M { string text = 1; bytes raw = 2; bool flag = 3; }")
    await answering(engine).answer(ASKED, await typed(wanted))
    (written,) = engine.written
    schemas = [schema_of(wanted, limits) for limits in LIMITS]
    fitting = [schema for schema in schemas if schema.max_bytes < context - len("ROLE_USER: What now?")]
    assert written.schema == fitting[0].text
    assert len(written.asked) + written.sampling.max_tokens <= context


async def test_what_breaks_the_rules_goes_back_once_with_what_is_wrong() -> None:
    engine = ScriptedEngine(['{"first":2,"last":1}', '{"first":1,"last":2}'])
    call = answering(engine)
    found = await call.answer(ASKED, await typed(message(SPAN)))
    said = fields_of(found, message(SPAN))
    assert (said.first, said.last, found.repair_count) == (1, 2, 1)
    again = engine.written[1].asked
    assert 'ROLE_ASSISTANT: {"first":2,"last":1}\nROLE_USER: That breaks rules of its type:' in again
    assert "first must not be after last" in again
    assert call.usage.output_token_count == 2 * len('{"first":2,"last":1}')
    assert call.usage.input_token_count == sum(len(each.asked) for each in engine.written)


async def test_an_answer_that_goes_back_after_a_prompt_writes_no_control_tokens() -> None:
    quoted = """message M { string text = 1 [(buf.validate.field).cel = {
      id: "quiet" expression: "this == 'calm' ? '' : 'is not calm: ' + this" }]; }"""
    engine = ScriptedEngine(['{"text":"<|system|>"}', '{"text":"calm"}'])
    await answering(engine).answer("<|user|>How?<|assistant|>", await typed(message(quoted)))
    again = engine.written[1].asked
    assert again.startswith('<|user|>How?<|assistant|>{"text":"< |system|>"}')
    assert "is not calm: < |system|>" in again


async def test_what_breaks_the_rules_twice_is_an_error_that_names_the_fields() -> None:
    engine = ScriptedEngine(['{"items":["a","a"]}'] * 2)
    unique = "message M { repeated string items = 1 [(buf.validate.field).repeated.unique = true]; }"
    with pytest.raises(FailedPrecondition, match="even when mended") as told:
        await answering(engine).answer(ASKED, await typed(message(unique)))
    assert told.value.reason == "RULES_BROKEN"
    assert [each.field for each in told.value.violations] == ["items"]
    assert engine.texts == []


async def test_what_there_is_no_room_to_mend_is_told_of_the_answer_and_not_of_what_was_asked() -> None:
    room = len("What now?") + len('{"first":2,"last":1}') + 30
    engine = ScriptedEngine(['{"first":2,"last":1}'], context_length=room)
    with pytest.raises(FailedPrecondition, match="no room to have it mended: first must not be after last") as told:
        await answering(engine).answer("What now?", await typed(message(SPAN)))
    assert told.value.reason == "RULES_BROKEN"
    assert len(engine.written) == 1


def all_that_is_left(engine: ScriptedEngine) -> int:
    """The most tokens that a caller may ask for, beside what they say themselves."""
    return engine.context_length - len("ROLE_USER: What now?")


async def test_what_we_say_beside_the_caller_takes_none_of_the_tokens_that_they_may_ask_for() -> None:
    engine = ScriptedEngine([TICKET])
    call = answering(engine, max_tokens=all_that_is_left(engine))
    await call.check(ASKED)
    await call.answer(ASKED, await typed(shapes()["Ticket"]))
    longest = schema_of(shapes()["Ticket"], LIMITS[0]).max_bytes
    assert engine.written[0].sampling.max_tokens == longest + 1
    with pytest.raises(InvalidCall) as told:
        await answering(engine, max_tokens=all_that_is_left(engine) + 1).check(ASKED)
    assert (told.value.reason, told.value.violations[0].field) == ("OUTPUT_TOO_LONG", "sampling.max_tokens")


async def test_who_asks_for_all_tokens_there_are_gets_an_answer_mended_too() -> None:
    engine = ScriptedEngine(['{"first":2,"last":1}', '{"first":1,"last":2}'], context_length=4096)
    found = await answering(engine, max_tokens=all_that_is_left(engine)).answer(ASKED, await typed(message(SPAN)))
    assert found.repair_count == 1


async def test_of_all_tokens_there_are_a_choice_takes_what_it_needs() -> None:
    engine = ScriptedEngine([json.dumps(CLOSE)], context_length=200)
    longer = choose_from(ASKED, {GET: "", CLOSE: ""})
    assert await answering(engine, max_tokens=all_that_is_left(engine)).choice(longer, [GET, CLOSE]) == CLOSE
    assert engine.written[0].sampling.max_tokens == len(json.dumps(CLOSE)) + 1


async def test_what_is_no_message_goes_back_too() -> None:
    engine = ScriptedEngine(['{"summary":1}', TICKET])
    found = await answering(engine).answer(ASKED, await typed(shapes()["Ticket"]))
    assert found.repair_count == 1


async def test_a_text_that_was_cut_is_an_error_however_whole_it_looks() -> None:
    engine = ScriptedEngine([TICKET], cut=True)
    with pytest.raises(FailedPrecondition, match="cut after 9 tokens") as told:
        await answering(engine, max_tokens=9).answer(ASKED, await typed(shapes()["Ticket"]))
    assert told.value.reason == "OUTPUT_CUT"
    assert len(engine.written) == 1


@pytest.mark.parametrize(("name", "value"), [("stop", ["x"]), ("logprobs", 1), ("logprobs", 0)])
def test_sampling_of_free_text_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidCall) as told:
        answering(ScriptedEngine([]), **{name: value})
    assert told.value.violations[0].field == f"sampling.{name}"


BAD_TYPES = {
    "no schema": ("message M { M inner = 1 [(buf.validate.field).required = true]; }", "NO_SCHEMA"),
    "no rules": (
        'message M { option (buf.validate.message).cel = {id: "x" expression: "this.no +"}; int32 i = 1; }',
        "BAD_RULES",
    ),
    "no rules of what it repeats": (
        'message M { repeated I i = 1; } message I { string s = 1 [(buf.validate.field).cel = {expression: "no +"}]; }',
        "BAD_RULES",
    ),
    "rules of another kind of value in a map": (
        "message I { string s = 1 [(buf.validate.field).int32.gt = 1]; } message M { map<string, I> i = 1; }",
        "BAD_RULES",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BAD_TYPES.values(), ids=BAD_TYPES)
async def test_a_type_that_cannot_be_answered_as_is_refused_before_the_model_is_asked(source: str, reason: str) -> None:
    with pytest.raises(InvalidCall, match="`M`") as told:
        await typed(message(source))
    assert (told.value.reason, told.value.violations[0].field) == (reason, "type")


async def test_a_type_that_the_engine_makes_no_grammar_of_is_the_callers_fault() -> None:
    engine = ScriptedEngine([], grammatical=0)
    with pytest.raises(InvalidCall, match=r"no grammar of `acme\.shapes\.v1\.Ticket`: no such characters") as told:
        await answering(engine).answer(ASKED, await typed(shapes()["Ticket"]))
    assert (told.value.reason, told.value.violations[0].field) == ("NO_GRAMMAR", "type")


async def test_a_choice_that_the_engine_makes_no_grammar_of_is_the_callers_fault() -> None:
    with pytest.raises(InvalidCall, match="no grammar of the candidates' names: no such characters") as told:
        await answering(ScriptedEngine([], grammatical=0)).choice(ASKED, [GET, CLOSE])
    assert (told.value.reason, told.value.violations[0].field) == ("NO_GRAMMAR", "candidates")


async def test_a_grammar_that_fails_when_the_answer_is_mended_is_told_like_one_that_fails_before() -> None:
    engine = ScriptedEngine(['{"first":2,"last":1}'], grammatical=1)
    with pytest.raises(InvalidCall) as told:
        await answering(engine).answer(ASKED, await typed(message(SPAN)))
    assert told.value.reason == "NO_GRAMMAR"


async def test_a_rule_without_end_ends() -> None:
    every = "true"
    for depth in range(8):
        every = f"[1,1,1,1,1,1,1,1,1,1,1,1].all(a{depth}, {every})"
    slow = f'message M {{ option (buf.validate.message).cel = {{id: "x" expression: "{every}"}}; bool b = 1; }}'
    with pytest.raises(InvalidCall, match="budget") as told:
        await answering(ScriptedEngine(['{"b":true}'])).answer(ASKED, await typed(message(slow)))
    assert told.value.reason == "BAD_RULES"


async def test_two_types_of_one_name_from_two_callers_do_not_meet() -> None:
    for bound in (1, 2):
        source = f"message M {{ int32 i = 1 [(buf.validate.field).int32.const = {bound}]; }}"
        found = await answering(ScriptedEngine([f'{{"i":{bound}}}'])).answer(ASKED, await typed(message(source)))
        assert fields_of(found, message(source)).i == bound


async def test_types_come_from_the_files_that_were_sent() -> None:
    types = Types(files(), HERE)
    assert (await types.find("acme.shapes.v1.Ticket", field="type")).name == "acme.shapes.v1.Ticket"
    with pytest.raises(NotFound) as told:
        await types.find("acme.shapes.v1.Nope", field="type")
    assert told.value.message == "there is no message type `acme.shapes.v1.Nope` in the files that were sent"
    assert told.value.resource == ("message type", "acme.shapes.v1.Nope")


BAD_FILES = {
    "an import that is missing": FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", dependency=["b.proto"])]),
    "a file that imports itself": FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", dependency=["a.proto"])]),
    "a name that is none": FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", package="a b")]),
    "one name twice": FileDescriptorSet(
        file=[
            FileDescriptorProto(name="a.proto", package="a"),
            FileDescriptorProto(name="a.proto", package="b"),
        ]
    ),
}


@pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES)
async def test_files_that_do_not_fit_are_refused(bad: FileDescriptorSet) -> None:
    with pytest.raises(InvalidCall, match=r"a\.proto") as told:
        await Types(bad, HERE).find("a.M", field="type")
    assert (told.value.reason, told.value.violations[0].field) == ("BAD_DESCRIPTORS", "descriptors")


@pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES)
async def test_files_that_do_not_fit_are_no_fault_of_a_caller_who_sent_none(
    bad: FileDescriptorSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reflected(_: object, name: str) -> list[bytes]:
        assert name == "a.M"
        return [file.SerializeToString() for file in bad.file]

    mesh: Untyped = SimpleNamespace(channel=None)
    answer(Call("/model", TESTER, call_id="", remaining=lambda: None, mesh=lambda: mesh))
    monkeypatch.setattr("model_server.types.files_defining", reflected)
    with pytest.raises(ToolFailed, match=r"the mesh tells of `a\.M`.*`a\.proto`") as told:
        await Types(None, HERE).find("a.M", field="type")
    assert told.value.reason == "BAD_REFLECTION"


SERVICE = """syntax = "proto3"; package acme.x.v1; import "llmesh/api/options/v1/options.proto";
service Tickets {
  rpc Get(GetRequest) returns (GetRequest) { option (llmesh.api.options.v1.method).summary = "Reads a ticket."; }
  rpc Close(CloseRequest) returns (CloseRequest);
}
message GetRequest { string id = 1; }
message CloseRequest { string id = 1; bool at_once = 2; }"""
GET, CLOSE = "acme.x.v1.Tickets/Get", "acme.x.v1.Tickets/Close"


def tickets() -> Types:
    return Types(FileDescriptorSet(file=from_source(SERVICE).files), HERE)


async def test_candidates_are_told_by_the_summary_of_their_contract_or_the_callers() -> None:
    asked = [pb.Candidate(method=GET), pb.Candidate(method=CLOSE, summary="Ends it.")]
    found = await find_candidates(asked, tickets())
    assert {path: each.summary for path, each in found.items()} == {GET: "Reads a ticket.", CLOSE: "Ends it."}


async def test_what_was_made_of_as_many_candidates_as_there_may_be_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    field = pb.ChooseCallRequest.DESCRIPTOR.fields_by_name["candidates"]
    most = field.GetOptions().Extensions[validate_pb2.field].repeated.max_items
    numbers = range(most)
    methods = "".join(f"rpc Do{number}(M{number}) returns (M{number});" for number in numbers)
    messages = "".join(f"message M{number} {{ string id = 1; }}" for number in numbers)
    source = f'syntax = "proto3"; package acme.many.v1; service Many {{ {methods} }} {messages}'
    sent_files = FileDescriptorSet(file=from_source(source).files)
    asked = [pb.Candidate(method=f"acme.many.v1.Many/Do{number}") for number in numbers]
    first = await find_candidates(asked, Types(sent_files, HERE))

    def again(*_: object) -> None:
        pytest.fail("makes it again")

    monkeypatch.setattr("model_server.type_work.schema_of", again)
    assert await find_candidates(asked, Types(sent_files, HERE)) == first
    assert most == 64


@pytest.mark.parametrize(
    ("methods", "error", "words"),
    [
        ((GET, GET), InvalidCall, r"`candidates\[1\].method` names"),
        ((GET, "acme.x.v1.Tickets/Nope"), NotFound, "no method `acme.x.v1.Tickets/Nope`"),
        (("acme.x.v1.Nope/Get",), NotFound, "no method `acme.x.v1.Nope/Get`"),
    ],
)
async def test_candidates_that_are_none_are_refused(
    methods: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await find_candidates([pb.Candidate(method=each) for each in methods], tickets())


async def test_a_choice_is_one_of_the_values_and_of_one_alone_nobody_is_asked() -> None:
    engine = ScriptedEngine([json.dumps(CLOSE)])
    assert await answering(engine).choice(ASKED, [GET, CLOSE]) == CLOSE
    assert json.loads(engine.written[0].schema) == {"enum": [GET, CLOSE]}
    assert await answering(engine).choice(ASKED, [GET]) == GET
    assert len(engine.written) == 1
