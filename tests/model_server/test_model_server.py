"""One real engine on a whole mesh: what it answers, what it refuses, and what it is left with."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Sequence
from itertools import islice
from typing import Any as Untyped

import grpc.aio
import protovalidate
import pytest
from acme.support.v1.triage_pb2 import Category, TriageTicketRequest, Urgency
from acme.support.v1.triage_pb2_grpc import TriageStub
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.api.records.v1 import records_pb2 as records
from llmesh.api.records.v1.records_pb2_grpc import RecordServiceStub
from llmesh.caller import caller_to_metadata
from llmesh.identity import DevCaller
from tests.e2e.mesh import ECHO, OUTSIDER, OWNER, READER
from tests.e2e.recorded import AUDITOR
from tests.eventually import eventually
from tests.llmesh.schema.shapes import files, shapes
from tests.model_server.models import (
    AT_ONCE,
    CALL_S,
    CALLERS,
    EMBEDDER,
    METRICS_PORT,
    SERVICE,
    SHARE,
    START_S,
    WAITING,
    WRITER,
    ModelServer,
    asked,
    chat,
    everybody_is_served,
    pieces,
)


async def refusal(call: grpc.aio.UnaryStreamCall[Untyped, Untyped]) -> llmesh.MeshError:
    with pytest.raises(llmesh.MeshError) as told:
        async for _ in call:
            pass
    return told.value


async def test_a_text_streams_through_the_whole_mesh_and_says_what_it_is_from(models: ModelServer) -> None:
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        call = ModelServiceStub(mesh.channel).Generate(chat("Hello?", max_tokens=40, seed=1), timeout=CALL_S)
        answer = [piece async for piece in call]
        trailers = dict(await call.trailing_metadata() or ())
    first, last = answer[0], answer[-1]
    assert len(answer) > 2
    assert "random weights" in first.warning
    assert (first.provenance.model, first.provenance.is_placeholder) == (WRITER, True)
    assert first.provenance.weights_digest.startswith(f"sha256:{first.provenance.revision}")
    assert first.provenance.sampling == pb.Sampling(temperature=1, top_p=1, top_k=0, max_tokens=40, seed=1)
    assert last.finish_reason == pb.FINISH_REASON_LENGTH
    assert last.usage.output_token_count == sum(piece.token_count for piece in answer) == 40
    assert not any(piece.finish_reason for piece in answer[:-1])
    for fact in (first.provenance.weights_digest, first.provenance.prompt_digest, '"output_tokens":40', '"seed":1'):
        assert fact in str(trailers["x-llmesh-provenance"])


async def test_the_decision_record_says_which_model_and_how_many_tokens(models: ModelServer) -> None:
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        call = ModelServiceStub(mesh.channel).Generate(asked(max_tokens=8), timeout=CALL_S)
        assert [piece async for piece in call]
        call_id = dict(await call.initial_metadata() or ())["x-llmesh-call-id"]

        async def is_recorded() -> records.Record:
            listed = records.ListRecordsRequest(filter=records.RecordFilter(tool=SERVICE), page_size=1000)
            page = await RecordServiceStub(channel).ListRecords(listed, metadata=models.mesh.bearer(AUDITOR))
            ends = [each for each in page.records if each.phase == records.Record.PHASE_END]
            found = [each for each in ends if each.call_id == call_id]
            assert found
            return found[0]

        async with grpc.aio.insecure_channel(models.mesh.address) as channel:
            record = await eventually(is_recorded)
    assert WRITER in record.provenance
    assert '"output_tokens":8' in record.provenance


async def test_long_inputs_at_once_with_a_seed_each_harm_no_engine(models: ModelServer) -> None:
    """A CPU's generator cannot be set back, as vLLM does once it has read a part of such an input."""
    long = "What is a mesh? " * 350
    async with models.stub() as stub:
        told = await asyncio.gather(
            *(pieces(stub, asked(f"{number} {long}", max_tokens=8, seed=number)) for number in range(SHARE))
        )
        listed = await stub.ListModels(pb.ListModelsRequest(), timeout=CALL_S)
    assert [answer[-1].finish_reason for answer in told] == [pb.FINISH_REASON_LENGTH] * len(told)
    assert min(answer[-1].usage.input_token_count for answer in told) > 2000
    assert all(model.ready for model in listed.models)


async def test_tokens_are_counted_as_the_model_reads_them(models: ModelServer) -> None:
    request = chat("How many tokens is this?", max_tokens=1)
    async with models.stub() as stub:
        counted = await stub.CountTokens(pb.CountTokensRequest(conversation=request.conversation))
        used = (await pieces(stub, request))[-1].usage.input_token_count
        vectors = await stub.CountTokens(pb.CountTokensRequest(prompt="two words", model=EMBEDDER))
    assert counted.token_count == used > 5
    assert (counted.model, counted.context_length) == (WRITER, 4096)
    assert (vectors.model, vectors.token_count) == (EMBEDDER, 4)


LONG = "word " * 9000


async def test_tokens_are_counted_of_more_than_the_model_reads(models: ModelServer) -> None:
    async with models.stub() as stub:
        prompt = await stub.CountTokens(pb.CountTokensRequest(prompt=LONG), timeout=CALL_S)
        talk = await stub.CountTokens(pb.CountTokensRequest(conversation=chat(LONG).conversation), timeout=CALL_S)
    assert 9000 < prompt.token_count < talk.token_count


def ticket(**fields: Untyped) -> pb.GenerateMessageRequest:
    return pb.GenerateMessageRequest(type="acme.shapes.v1.Ticket", descriptors=files(), **fields)


BROKEN = FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", dependency=["b.proto"])])
CANDIDATES = [pb.Candidate(method=f"{ECHO}/Unary")]
WRONG: list[tuple[Untyped, str]] = [
    (pb.GenerateRequest(), "input"),
    (asked(""), "prompt"),
    (pb.GenerateRequest(conversation=pb.Conversation()), "conversation.messages"),
    (chat(""), "conversation.messages[0].content"),
    (asked(temperature=2.5), "sampling.temperature"),
    (asked(temperature=float("nan")), "sampling.temperature"),
    (asked(top_p=0), "sampling.top_p"),
    (asked(logprobs=21), "sampling.logprobs"),
    (asked(seed=1 << 63), "sampling.seed"),
    (asked(stop=[""]), "sampling.stop[0]"),
    (asked(max_tokens=4096), "sampling.max_tokens"),
    (asked(LONG), "prompt"),
    (chat(LONG), "conversation"),
    (pb.GenerateRequest(prompt="a", model="nobody"), "model"),
    (pb.GenerateMessageRequest(prompt="a", type="a.B", model="nobody"), "model"),
    (pb.GenerateMessageRequest(prompt="a"), "type"),
    (ticket(), "input"),
    (ticket(prompt=LONG), "prompt"),
    (ticket(conversation=chat(LONG).conversation), "conversation"),
    (ticket(prompt="a", sampling=pb.Sampling(stop=["b"])), "sampling.stop"),
    (pb.GenerateMessageRequest(prompt="a", type="a.B", descriptors=BROKEN), "descriptors"),
    (pb.ChooseCallRequest(conversation=chat("a").conversation, candidates=CANDIDATES, model="nobody"), "model"),
    (pb.ChooseCallRequest(conversation=chat("a").conversation), "candidates"),
    (pb.ChooseCallRequest(candidates=CANDIDATES), "conversation"),
    (pb.EmbedRequest(texts=["a"], model="nobody"), "model"),
    (pb.EmbedRequest(), "texts"),
    (pb.EmbedRequest(texts=["a", ""]), "texts[1]"),
    (pb.CountTokensRequest(prompt="a", model="nobody"), "model"),
    (pb.CountTokensRequest(), "input"),
    (pb.CountTokensRequest(conversation=chat("a").conversation, model=EMBEDDER), "conversation"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG, ids=range(len(WRONG)))
async def test_bad_input_is_refused_with_the_field_at_fault(models: ModelServer, wrong: Untyped, field: str) -> None:
    method = type(wrong).__name__.removesuffix("Request")
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        call = getattr(ModelServiceStub(mesh.channel), method)(wrong, timeout=CALL_S)
        with pytest.raises(llmesh.InvalidCall) as told:
            _ = [piece async for piece in call] if method == "Generate" else await call
    assert told.value.violations[0].field == field


async def test_what_a_model_cannot_do_is_said(models: ModelServer) -> None:
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        stub = ModelServiceStub(mesh.channel)
        with pytest.raises(llmesh.FailedPrecondition, match=EMBEDDER):
            await stub.Embed(pb.EmbedRequest(texts=["a"], model=WRITER), timeout=CALL_S)


async def test_beyond_the_queue_a_call_is_told_to_come_again(models: ModelServer) -> None:
    async with llmesh.Mesh(f"unix:{models.socket}") as mesh:
        stub = ModelServiceStub(mesh.channel)
        calls = [
            stub.Generate(asked(max_tokens=4000), metadata=caller_to_metadata(caller), timeout=CALL_S)
            for caller in CALLERS
            for _ in range(SHARE)
        ]
        reads = [asyncio.ensure_future(call.read()) for call in calls]
        with pytest.raises(llmesh.OverQuota) as told:
            await asyncio.gather(*reads)
        for call in calls:
            call.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
    assert told.value.retry_after_s is not None
    assert told.value.retry_after_s > 0


async def test_nobody_learns_what_others_have_asked_by_what_the_engine_still_knows(models: ModelServer) -> None:
    async def cached(caller: DevCaller) -> int:
        async with llmesh.Mesh(models.mesh.address, models.mesh.token(caller)) as mesh:
            call = ModelServiceStub(mesh.channel).Generate(asked("secret " * 400, max_tokens=1), timeout=CALL_S)
            return [piece async for piece in call][-1].usage.cached_token_count

    assert await cached(READER) == 0
    assert await cached(READER) > 500
    assert await cached(OWNER) == 0


async def test_who_leaves_frees_the_engine_at_once(models: ModelServer) -> None:
    async with (
        llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh,
        llmesh.Mesh(models.mesh.address, models.mesh.token(OWNER)) as other,
        models.stub() as stub,
    ):
        callers = (*[mesh] * SHARE, *[other] * (AT_ONCE + WAITING - SHARE))
        calls = [ModelServiceStub(each.channel).Generate(asked(max_tokens=4000)) for each in callers]
        reads = [asyncio.ensure_future(call.read()) for call in calls]
        for being_written in islice(asyncio.as_completed(reads), AT_ONCE):
            assert await being_written
        for call in calls:
            call.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await eventually(lambda: everybody_is_served(stub))


async def test_whose_time_is_up_frees_the_engine_at_once(models: ModelServer) -> None:
    async with llmesh.Mesh(f"unix:{models.socket}") as mesh, models.stub() as stub:
        direct = ModelServiceStub(mesh.channel)
        calls = [
            direct.Generate(asked(max_tokens=4000), metadata=caller_to_metadata(CALLERS[number % 2]), timeout=1)
            for number in range(AT_ONCE + WAITING)
        ]
        ended = await asyncio.gather(*(refusal(call) for call in calls))
        assert {type(each) for each in ended} == {llmesh.DeadlineExceeded}
        await eventually(lambda: everybody_is_served(stub))


async def test_a_reader_who_stops_holds_nobody_up(models: ModelServer) -> None:
    async with models.direct() as channel, models.stub() as stub:
        slow = [ModelServiceStub(channel).Generate(asked(max_tokens=3000)) for _ in range(AT_ONCE - 1)]
        for call in slow:
            assert await call.read()
        for _ in range(3):
            assert (await pieces(stub, asked(max_tokens=50)))[-1].finish_reason
        for call in slow:
            last = None
            while (piece := await call.read()) is not grpc.aio.EOF:
                last = piece
            assert isinstance(last, pb.GenerateResponse)
            assert last.usage.output_token_count == 3000


async def test_texts_of_like_meaning_have_near_vectors_of_length_one(models: ModelServer) -> None:
    texts = ["The call timed out.", "No answer came in time.", "Bread is baked from flour."]
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        answer = await ModelServiceStub(mesh.channel).Embed(pb.EmbedRequest(texts=texts), timeout=CALL_S)
    one, like, other = (each.values for each in answer.vectors)
    assert (answer.dimension, len(one), answer.provenance.model, answer.warning) == (384, 384, EMBEDDER, "")

    def dot(a: Sequence[float], b: Sequence[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert [dot(each, each) for each in (one, like, other)] == pytest.approx([1, 1, 1], abs=1e-5)
    assert dot(one, like) > dot(one, other) + 0.2


async def test_a_text_too_long_for_vectors_is_refused_or_cut_as_asked(models: ModelServer) -> None:
    long = "word " * 400
    async with llmesh.Mesh(f"unix:{models.socket}") as mesh:
        stub = ModelServiceStub(mesh.channel)
        with pytest.raises(llmesh.InvalidCall) as told:
            await stub.Embed(pb.EmbedRequest(texts=["short", long]), timeout=CALL_S)
        cut = await stub.Embed(pb.EmbedRequest(texts=["short", long], truncate=True), timeout=CALL_S)
    assert [each.field for each in told.value.violations] == ["texts[1]"]
    assert [each.is_truncated for each in cut.vectors] == [False, True]


async def test_models_are_listed_and_health_tells_of_each(models: ModelServer) -> None:
    async with models.stub() as stub:
        writer, embedder = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (writer.id, writer.ready, writer.is_placeholder, writer.context_length) == (WRITER, True, True, 4096)
    assert list(writer.capabilities) == [pb.MODEL_CAPABILITY_WRITE, pb.MODEL_CAPABILITY_CONVERSE]
    assert (embedder.id, embedder.ready, embedder.dimension) == (EMBEDDER, True, 384)
    for name in ("", SERVICE, WRITER, EMBEDDER):
        assert await models.health(name) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.usefixtures("models")
async def test_figures_of_ours_and_of_vllm_are_at_one_port() -> None:
    url = f"http://127.0.0.1:{METRICS_PORT}/metrics"
    told = (await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=CALL_S).read())).decode()
    assert f'llmesh_model_ready{{model="{WRITER}"}} 1.0' in told
    assert "vllm:num_requests_running" in told


async def test_every_shape_of_message_is_written_whole_and_read_at_any_temperature(models: ModelServer) -> None:
    at_once = asyncio.Semaphore(AT_ONCE)

    async def answer(name: str) -> pb.GenerateMessageResponse:
        request = pb.GenerateMessageRequest(
            conversation=chat("Say something.").conversation,
            sampling=pb.Sampling(temperature=2),
            type=f"acme.shapes.v1.{name}",
            descriptors=files(),
        )
        async with at_once:
            return await stub.GenerateMessage(request, timeout=CALL_S)

    async with models.stub() as stub:
        answers = await asyncio.gather(*(answer(name) for name in shapes()))
    assert len(answers) >= 20
    for each, descriptor in zip(answers, shapes().values(), strict=True):
        assert each.message.TypeName() == descriptor.full_name
        message = message_factory.GetMessageClass(descriptor).FromString(each.message.value)
        assert not protovalidate.Validator().collect_violations(message)
        assert each.provenance.is_placeholder


@pytest.fixture
def with_triage(models: ModelServer) -> ModelServer:
    """The same, beside a tool that a prompt alone implements."""
    models.mesh.start_tool("support/triage")
    models.mesh.wait_ready("acme.support.v1.Triage", within_s=START_S)
    return models


async def test_a_prompt_alone_answers_as_its_methods_type(with_triage: ModelServer) -> None:
    mesh = with_triage.mesh
    async with llmesh.Mesh(mesh.address, mesh.token(DevCaller("sam", domain="support"))) as client:
        request = TriageTicketRequest(title="Cannot sign in", text="The page says that my password is wrong.")
        call = TriageStub(client.channel).TriageTicket(request, timeout=CALL_S)
        answer = await call
        provenance = str(dict(await call.trailing_metadata() or ())["x-llmesh-provenance"])

    # What it says is random; that it is one of the words, and within its bounds, is not.
    assert answer.category in Category.values()[1:]
    assert answer.urgency in Urgency.values()[1:]
    assert 1 <= len(answer.summary) <= 240
    assert 0 <= answer.confidence <= 1
    for fact in ('"prompt":"triage"', WRITER, "sha256:", "random weights"):
        assert fact in provenance


async def test_a_type_on_the_mesh_is_found_in_the_callers_own_sight(models: ModelServer) -> None:
    models.mesh.start_echo()
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)

    def asked_for(name: str) -> pb.GenerateMessageRequest:
        return pb.GenerateMessageRequest(prompt="An item: ", type=name)

    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        seen = await ModelServiceStub(mesh.channel).GenerateMessage(asked_for("acme.testing.v1.Item"), timeout=CALL_S)
    assert seen.message.TypeName() == "acme.testing.v1.Item"
    async with llmesh.Mesh(models.mesh.address, models.mesh.token(OUTSIDER)) as mesh:
        stub = ModelServiceStub(mesh.channel)
        told: list[str] = []
        for name in ("acme.testing.v1.Item", "acme.testing.v1.Nope"):
            with pytest.raises(llmesh.NotFound) as refused:
                await stub.GenerateMessage(asked_for(name), timeout=CALL_S)
            told.append(refused.value.message.replace(name, ""))
    assert told[0] == told[1]


async def test_a_call_is_chosen_from_the_candidates_with_a_request_that_keeps_its_rules(models: ModelServer) -> None:
    models.mesh.start_echo("echo-2")
    await asyncio.to_thread(models.mesh.wait_ready, ECHO)
    candidates = {f"{ECHO}/Unary": "UnaryRequest", f"{ECHO}/WhoAmI": "WhoAmIRequest"}
    request = pb.ChooseCallRequest(
        conversation=chat("Who am I?").conversation, candidates=[pb.Candidate(method=each) for each in candidates]
    )
    async with llmesh.Mesh(models.mesh.address, models.mesh.token()) as mesh:
        chosen = await ModelServiceStub(mesh.channel).ChooseCall(request, timeout=CALL_S)
    assert chosen.request.TypeName() == f"acme.testing.v1.{candidates[chosen.method]}"
