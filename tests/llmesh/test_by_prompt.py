"""Methods that a prompt alone implements: what is checked at the start, asked of the model, and told to the caller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from acme.testing.v1 import judges_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoServicer as Empty
from acme.testing.v1.judges_pb2_grpc import JudgesServicer, JudgesStub, StreamsServicer, UsesNothingServicer
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import llmesh
from llmesh import (
    Denied,
    FailedPrecondition,
    InvalidCall,
    MeshError,
    NotFound,
    OverQuota,
    Prompt,
    ServeError,
    Server,
    ToolFailed,
    Unavailable,
    Unimplemented,
    Violation,
    testing,
)
from llmesh._by_prompt import PROMPTS_MAX
from llmesh.api.model.v1 import model_pb2 as model
from llmesh.api.prompts.v1 import prompts_pb2 as prompts
from llmesh.api.prompts.v1.prompts_pb2_grpc import PromptServiceStub
from llmesh.caller import CALL_ID_KEY
from tests.models import Models, models

GOOD = pb.JudgeResponse(verdict=pb.VERDICT_GOOD, reason="it is short")
ASKED = prompts.ListPromptsRequest()
TEXT = "Is this good? {{ text }}\n"


@pytest.fixture
def judge(tmp_path: Path) -> Prompt:
    return load(tmp_path, TEXT, pb.JudgeRequest)


def load(folder: Path, text: str, message: type[Message], name: str = "judge") -> Prompt:
    path = folder / f"{name}.jinja"
    path.write_text(text)
    return Prompt.load(path, message)


async def judged(
    prompt: Prompt, *mesh: object, servicer: object = JudgesServicer, text: str = "Tea."
) -> tuple[pb.JudgeResponse, list[dict[str, Any]]]:
    """What is answered, and the provenance."""
    async with testing.run(servicer, prompts=(prompt,), mesh=mesh) as tool:
        call = JudgesStub(tool.channel).Judge(pb.JudgeRequest(text=text), timeout=30)
        answer = await call
        trailers = dict(await call.trailing_metadata() or ())
    return answer, json.loads(str(trailers.get("x-llmesh-provenance", "[]")))


async def test_a_prompt_alone_implements_a_method(judge: Prompt) -> None:
    fake = models(GOOD)

    answer, _ = await judged(judge, fake)

    assert answer == GOOD
    assert fake.prompts == ["Is this good? Tea."]
    (asked,) = fake.asked
    assert asked.conversation.messages[0].role == model.ROLE_USER


async def test_the_type_of_the_answer_comes_with_all_that_it_is_made_of(judge: Prompt) -> None:
    fake = models(GOOD)

    await judged(judge, fake)

    (asked,) = fake.asked
    pool = DescriptorPool()
    for file in asked.descriptors.file:
        pool.Add(file)
    found = GetMessageClass(pool.FindMessageTypeByName(asked.type))
    assert found.FromString(GOOD.SerializeToString()).SerializeToString() == GOOD.SerializeToString()


async def test_the_answer_says_by_which_prompt_and_model_it_came(judge: Prompt) -> None:
    _, cited = await judged(judge, models(GOOD, warning="random weights"))

    assert cited == [
        {"prompt": "judge", "digest": judge.digest},
        {"model": "tests/tiny", "revision": "r1", "weights_digest": "sha256:77"},
        {"warning": "random weights"},
    ]


class Code(JudgesServicer):
    """Judges by itself."""

    async def Judge(self, request: pb.JudgeRequest, context: object) -> pb.JudgeResponse:
        return pb.JudgeResponse(verdict=pb.VERDICT_BAD, reason=request.text)


async def test_code_that_implements_the_method_replaces_the_prompt(judge: Prompt) -> None:
    fake = models(GOOD)

    answer, cited = await judged(judge, fake, servicer=Code())  # pyright: ignore[reportAbstractUsage] Acquit has no code

    assert (answer.verdict, answer.reason, cited, fake.asked) == (pb.VERDICT_BAD, "Tea.", [], [])


async def test_a_method_without_code_and_prompt_stays_unimplemented(judge: Prompt) -> None:
    async with testing.run(JudgesServicer, prompts=(judge,)) as tool:
        with pytest.raises(Unimplemented):
            await JudgesStub(tool.channel).Acquit(pb.AcquitRequest(), timeout=30)


async def test_the_rules_of_the_request_hold_before_a_model_is_asked(judge: Prompt) -> None:
    fake = models(GOOD)
    with pytest.raises(InvalidCall) as caught:
        await judged(judge, fake, text="")

    assert [each.field for each in caught.value.violations] == ["text"]
    assert fake.asked == []


def start(servicer: object, *given: Prompt) -> str:
    with pytest.raises(ServeError) as caught:
        Server(servicer, prompts=given, address="unix:/unused.sock")
    return str(caught.value)


def test_a_prompt_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    other = load(tmp_path, TEXT, pb.JudgeRequest, "other")

    told = start(JudgesServicer, other)

    assert told.startswith("`acme.testing.v1.Judges/Judge` is implemented by the prompt `judge`, and the server was")
    assert "given `other`: pass prompts=[llmesh.Prompt.load(...)], or implement the method" in told
    assert "given none" in start(JudgesServicer)


def test_a_prompt_for_another_message_ends_the_start(tmp_path: Path) -> None:
    told = start(JudgesServicer, load(tmp_path, "{{ name }}", pb.Author))

    assert "rendered from `acme.testing.v1.Author`, not from `acme.testing.v1.JudgeRequest`" in told


def test_a_method_that_may_ask_no_model_ends_the_start(judge: Prompt) -> None:
    told = start(UsesNothingServicer, judge)

    assert told.startswith("`acme.testing.v1.UsesNothing/JudgeAlone`")
    assert 'its contract must say `uses: ["llmesh.api.model.v1.ModelService/GenerateMessage"]`' in told


def test_a_method_that_streams_ends_the_start(judge: Prompt) -> None:
    assert "only a method of one request and one response" in start(StreamsServicer, judge)


def test_two_prompts_of_one_name_end_the_start(judge: Prompt) -> None:
    assert start(JudgesServicer, judge, judge) == "there are two prompts `judge`: name their files apart"


def test_more_prompts_than_anybody_reads_end_the_start(judge: Prompt, tmp_path: Path) -> None:
    small = [load(tmp_path, "x", pb.Author, f"p{number}") for number in range(PROMPTS_MAX)]
    large = [load(tmp_path, "x" * 60_000, pb.Author, f"p{number}") for number in range(18)]

    assert start(JudgesServicer, judge, *small).startswith("there are 65 prompts, of ")
    assert start(JudgesServicer, judge, *large).endswith("a server has at most 64, of 1048576 bytes in all")


CUT = FailedPrecondition("cut after 64 tokens", reason="OUTPUT_CUT")
LONG = InvalidCall("too long", [Violation("conversation", "600 tokens of 512")])
BAD_TYPE = InvalidCall("bad type", [Violation("type", "has an Any")])
FAILURES: Sequence[tuple[Exception, type[MeshError], str]] = [
    (CUT, ToolFailed, "OUTPUT_CUT"),
    (LONG, InvalidCall, "PROMPT_TOO_LONG"),
    (BAD_TYPE, ToolFailed, "MODEL_REFUSED"),
    (NotFound("no such model"), Unavailable, "NO_MODEL_SERVER"),
    (Denied("not there, or not for you", reason="NOT_DELEGATED"), Unavailable, "NO_MODEL_SERVER"),
    (Unavailable("the engine ended", retry_after_s=5, reason="ENGINE_ENDED"), Unavailable, "ENGINE_ENDED"),
    (OverQuota("48 calls wait", retry_after_s=1), OverQuota, "OVER_QUOTA"),
    (Denied("not you", rule="mesh/x"), Denied, "DENIED"),
]


@pytest.mark.parametrize(("failure", "kind", "reason"), FAILURES, ids=range(len(FAILURES)))
async def test_what_fails_at_the_model_is_told_as_what_it_is_to_the_caller(
    judge: Prompt, failure: Exception, kind: type[MeshError], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        await judged(judge, models(failure))

    assert caught.value.reason == reason


async def test_where_there_is_no_model_server_the_caller_is_told_what_to_do(judge: Prompt) -> None:
    with pytest.raises(Unavailable, match=r"no model server is on this mesh.*`make model`.*`llmesh up`") as caught:
        await judged(judge, Empty())  # pyright: ignore[reportAbstractUsage] a mesh with another tool

    assert caught.value.reason == "NO_MODEL_SERVER"


async def test_a_failure_says_by_which_prompt_it_came(judge: Prompt) -> None:
    async with testing.run(JudgesServicer, prompts=(judge,), mesh=(models(CUT),)) as tool:
        call = JudgesStub(tool.channel).Judge(pb.JudgeRequest(text="x"), timeout=30)
        with pytest.raises(ToolFailed):
            await call
        trailers = dict(await call.trailing_metadata() or ())

    assert json.loads(str(trailers["x-llmesh-provenance"])) == [{"prompt": "judge", "digest": judge.digest}]


async def test_without_a_delegation_the_caller_is_told_so(judge: Prompt) -> None:
    with pytest.raises(ToolFailed, match="list them in its contract under `uses`"):
        await judged(judge)


def lying(**changed: object) -> Models:
    """A model server whose answer is not what it says."""
    fake = models(GOOD)
    answer = fake.GenerateMessage

    async def lie(request: model.GenerateMessageRequest, context: object) -> model.GenerateMessageResponse:
        told = await answer(request, context)
        for name, value in changed.items():
            setattr(told.message, name, value)
        return told

    fake.GenerateMessage = lie
    return fake


LIES = [
    (models(pb.AcquitResponse()), "OTHER_TYPE"),
    (models(pb.JudgeResponse(verdict=pb.VERDICT_GOOD, reason="x" * 101)), "RULES_BROKEN"),
    (models(pb.JudgeResponse()), "RULES_BROKEN"),
    (lying(value=b"\xff"), "MALFORMED"),
    (lying(type_url="nothing"), "OTHER_TYPE"),
]


@pytest.mark.parametrize(("fake", "reason"), LIES, ids=range(len(LIES)))
async def test_a_model_server_that_lies_is_no_answer(judge: Prompt, fake: Models, reason: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        await judged(judge, fake)

    assert caught.value.reason == reason


async def test_a_request_that_is_too_long_asks_no_model(judge: Prompt) -> None:
    fake = models(GOOD)
    with pytest.raises(InvalidCall) as caught:
        await judged(judge, fake, text="x" * 262_145)

    assert (caught.value.reason, fake.asked) == ("PROMPT_TOO_LONG", [])


async def test_the_gateway_alone_reads_a_tools_prompts_from_it(judge: Prompt, tmp_path: Path) -> None:
    by_code = load(tmp_path, "{{ name }}", pb.Author, "author")
    async with testing.run(JudgesServicer, prompts=(judge, by_code)) as tool:
        listed = await PromptServiceStub(tool.raw_channel).ListPrompts(ASKED, timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PromptServiceStub(tool.raw_channel).ListPrompts(ASKED, metadata=((CALL_ID_KEY, "7"),), timeout=30)

    assert [(each.name, each.text, each.request_type, list(each.methods)) for each in listed.prompts] == [
        ("author", "{{ name }}", "acme.testing.v1.Author", []),
        ("judge", TEXT, "acme.testing.v1.JudgeRequest", ["acme.testing.v1.Judges/Judge"]),
    ]
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_code_asks_a_model_by_a_prompt_of_its_own(judge: Prompt) -> None:
    class Asking(JudgesServicer):
        async def Judge(self, request: pb.JudgeRequest, context: object) -> pb.JudgeResponse:
            written = await judge.ask(request, pb.JudgeResponse)
            assert written.warning == "random"
            return written.message

    answer, cited = await judged(judge, models(GOOD, warning="random"), servicer=Asking())  # pyright: ignore[reportAbstractUsage]

    assert (answer, cited[0]["prompt"]) == (GOOD, "judge")


@pytest.mark.parametrize(
    ("text", "fits"),
    [("Tea.", True), ("Tea " * 6, False), ("Tea " * 10, False), ("x" * 262_145, False)],
    ids=["room", "none to write", "none to read", "none to render"],
)
async def test_code_asks_whether_the_model_has_room_for_a_prompt(judge: Prompt, text: str, *, fits: bool) -> None:
    told: list[bool] = []

    class Asking(JudgesServicer):
        async def Judge(self, request: pb.JudgeRequest, context: object) -> pb.JudgeResponse:
            told.append(await judge.fits(request, leaving=4))
            return GOOD

    # Three words are the prompt's own.
    fake = models(GOOD, context_length=12)
    await judged(judge, fake, servicer=Asking(), text=text)  # pyright: ignore[reportAbstractUsage]

    assert (told, fake.asked) == ([fits], [])


def test_what_is_no_servicer_serves_nothing() -> None:
    with pytest.raises(llmesh.ServeError, match="serves nothing"):
        Server(object, address="unix:/unused.sock")
