"""A model is a tool like any other: traced, blocked, recorded, asked by other tools. With a real engine."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from acme.handbook.v1 import handbook_search_pb2
from acme.handbook.v1.handbook_search_pb2_grpc import HandbookSearchServicer
from acme.support.v1.answer_pb2 import AnswerTicketRequest, AnswerTicketResponse
from acme.support.v1.answer_pb2_grpc import AnswersStub
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval
from llmesh.identity import DevCaller
from tests.collector import Collector
from tests.e2e.mesh import ECHO, READER
from tests.e2e.recorded import AUDITOR
from tests.eventually import eventually
from tests.llmesh.schema.shapes import files
from tests.model_server.commands import blocked, command
from tests.model_server.models import (
    CALL_S,
    EMBEDDER,
    NAME,
    SERVICE,
    START_S,
    WRITER,
    ModelServer,
    asked,
    chat,
    everybody_is_served,
)

AGENT = DevCaller("sam", domain="support")
ENVOY = "llmesh-envoy"
# Takes a second at least: 8 texts of up to 256 characters each.
LONG_ANSWER: dict[str, Any] = {"type": "acme.shapes.v1.Lists", "descriptors": files()}
HANDBOOK = handbook_search_pb2.DESCRIPTOR.services_by_name["HandbookSearch"].full_name
ITEM = "acme.testing.v1.Item"
# Envoy's of the call, the server's, its own of asking for the type, and Envoy's of that: each caused the next.
CHAIN = (
    (ENVOY, Span.SPAN_KIND_SERVER),
    (NAME, Span.SPAN_KIND_SERVER),
    (NAME, Span.SPAN_KIND_CLIENT),
    (ENVOY, Span.SPAN_KIND_SERVER),
)


@pytest.fixture
async def client(models: ModelServer) -> AsyncGenerator[llmesh.Mesh]:
    """The models' mesh, as a reader."""
    async with llmesh.Mesh(models.mesh.address, models.mesh.token(READER)) as mesh:
        yield mesh


async def test_a_call_joins_its_callers_trace_and_so_does_what_it_asks_of_the_mesh(
    models: ModelServer, collector: Collector, client: llmesh.Mesh
) -> None:
    models.mesh.start_echo("echo-traced")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    request = pb.GenerateMessageRequest(prompt="An item: very private", type=ITEM)

    await ModelServiceStub(client.channel).GenerateMessage(
        request, metadata=(("traceparent", f"00-{trace}-{parent}-01"),), timeout=CALL_S
    )

    async def all_told() -> list[Span]:
        spans = [(service, span) for service, span in collector.spans if span.trace_id.hex() == trace]
        chain, at = list[Span](), bytes.fromhex(parent)
        for service, kind in CHAIN:
            found = [span for by, span in spans if (by, span.kind, span.parent_span_id) == (service, kind, at)]
            assert found, (service, kind)
            chain.append(found[0])
            at = found[0].span_id
        return chain

    assert "very private" not in str(await eventually(all_told))


async def test_a_model_that_is_blocked_refuses_until_it_is_unblocked(models: ModelServer, client: llmesh.Mesh) -> None:
    stub = ModelServiceStub(client.channel)

    async def refused() -> None:
        with pytest.raises(llmesh.Denied, match="it raves") as told:
            await stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=CALL_S)
        assert told.value.reason == "BLOCKED"

    async with blocked(models, f"{SERVICE}/Generate"):
        with pytest.raises(llmesh.Denied, match="it raves") as told:
            async for _ in stub.Generate(asked(max_tokens=1), timeout=CALL_S):
                pass
        assert told.value.reason == "BLOCKED"
        assert (await stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=CALL_S)).vectors
    async with blocked(models, SERVICE):
        await refused()
    assert [piece async for piece in stub.Generate(asked(max_tokens=1), timeout=CALL_S)]


async def id_of(call: Any) -> str:
    """The mesh's id for a call."""
    headers: dict[str, str] = dict(await call.initial_metadata())
    return headers["x-llmesh-call-id"]


async def test_the_audit_says_of_each_method_which_model_answered_and_with_how_many_tokens(
    models: ModelServer, client: llmesh.Mesh
) -> None:
    models.mesh.start_echo("echo-audited")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    stub = ModelServiceStub(client.channel)
    conversation = chat("Who am I?").conversation
    candidates = [pb.Candidate(method=f"{ECHO}/{name}") for name in ("Unary", "WhoAmI")]
    calls: dict[str, Any] = {
        "GenerateMessage": stub.GenerateMessage(
            pb.GenerateMessageRequest(conversation=conversation, type=ITEM), timeout=CALL_S
        ),
        "ChooseCall": stub.ChooseCall(
            pb.ChooseCallRequest(conversation=conversation, candidates=candidates), timeout=CALL_S
        ),
        "Embed": stub.Embed(pb.EmbedRequest(texts=["a", "b"]), timeout=CALL_S),
        "CountTokens": stub.CountTokens(pb.CountTokensRequest(prompt="a b"), timeout=CALL_S),
    }
    answers = {name: await call for name, call in calls.items()}
    ids = {await id_of(call): name for name, call in calls.items()}

    async def are_recorded() -> Mapping[str, list[dict[str, Any]]]:
        told = await asyncio.to_thread(command, models, AUDITOR, "audit", "--tool", SERVICE, "--json")
        found = [json.loads(line) for line in told.splitlines()]
        cited = {ids[each["call_id"]]: json.loads(each["provenance"]) for each in found if each["call_id"] in ids}
        assert cited.keys() == answers.keys()
        return cited

    for name, cited in (await eventually(are_recorded)).items():
        assert {each["model"] for each in cited} == {EMBEDDER if name == "Embed" else WRITER}
        assert all(each["weights"].startswith(f"sha256:{each['revision']}") for each in cited)
        if name == "CountTokens":
            continue
        usage = answers[name].usage
        assert sum(each["input_tokens"] for each in cited) == usage.input_token_count > 0
        assert sum(each.get("output_tokens", 0) for each in cited) == usage.output_token_count
        if name != "Embed":
            assert cited[-1]["prompt"] == answers[name].provenance.prompt_digest
            assert usage.output_token_count > 0


async def test_an_answer_that_packs_a_type_of_another_contract_is_shown_in_the_shell(models: ModelServer) -> None:
    models.mesh.start_echo("echo-packed")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    request = json.dumps({"prompt": "Who am I?", "type": ITEM})

    told = await asyncio.to_thread(command, models, READER, "call", f"{SERVICE}/GenerateMessage", request, "--json")

    assert json.loads(told)["message"]["@type"] == f"type.googleapis.com/{ITEM}"
    assert len(json.loads(told)["message"]) > 1


async def test_whose_time_is_up_is_told_so_through_the_mesh(models: ModelServer, client: llmesh.Mesh) -> None:
    stub = ModelServiceStub(client.channel)

    async def written() -> None:
        async for _ in stub.Generate(asked(max_tokens=4000), timeout=3):
            pass

    async def answered() -> None:
        sampling = pb.Sampling(temperature=2)
        await stub.GenerateMessage(pb.GenerateMessageRequest(prompt="a", sampling=sampling, **LONG_ANSWER), timeout=0.5)

    ended = await asyncio.gather(written(), written(), answered(), return_exceptions=True)
    assert {type(each) for each in ended} == {llmesh.DeadlineExceeded}
    async with models.stub() as direct:
        await everybody_is_served(direct)


class Handbook(HandbookSearchServicer):
    """As many pages as a sentence can name."""

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        return retrieval.RetrieveResponse(
            passages=[retrieval.Passage(text=f"{number}", score=1 / (1 + number)) for number in range(100)]
        )


async def test_each_sentence_of_a_models_reply_is_tied_to_a_passage_or_nothing_is_found(models: ModelServer) -> None:
    mesh = models.mesh
    mesh.start_tool("support/answer")
    async with (
        llmesh.Server(Handbook(), home=mesh.home, name="handbook"),
        llmesh.Mesh(mesh.address, mesh.token(AGENT)) as client,
    ):
        await asyncio.to_thread(mesh.wait_ready, "acme.support.v1.Answers", HANDBOOK)

        async def replied() -> AnswerTicketResponse:
            request = AnswerTicketRequest(text="Where is it?", limit=100)
            answer = await AnswersStub(client.channel).AnswerTicket(request, timeout=CALL_S)
            assert answer.HasField("reply"), answer.note
            # What it writes is random; what of it is given to the caller is not.
            assert_tied(answer)
            assert answer.reply.found
            return answer

        answer = await eventually(replied, within_s=START_S)
    assert "random weights" in answer.note


def assert_tied(answer: AnswerTicketResponse) -> None:
    """Raises RuntimeError, which nobody waits to pass, if a sentence rests on nothing that was found."""
    reply, passages = answer.reply, range(1, len(answer.sources) + 1)
    if bool(reply.sentences) is not reply.found:
        raise RuntimeError(answer)
    for sentence in reply.sentences:
        if not sentence.passages or not set(sentence.passages) <= set(passages):
            raise RuntimeError(answer)
