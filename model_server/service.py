"""llmesh.api.model.v1.ModelService over the models that are served here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer
from llmesh.call import current_call
from llmesh.errors import InvalidCall, Violation
from model_server.candidates import find_candidates
from model_server.models import Models
from model_server.reader import reader
from model_server.share import Share
from model_server.source import ModelSource
from model_server.turns import choose_from, request_for
from model_server.typed import Answering
from model_server.types import Types
from model_server.workshop import Workshop
from model_server.writing import Writing

__all__ = ["ModelServicer"]

# Of texts that are too long, so many are named.
NAMED = 8


class ModelServicer(ModelServiceServicer):
    """Answers from the models."""

    def __init__(self, models: Models, workshop: Workshop, *, calls: Share, texts: Share) -> None:
        """Models and workshop: entered for as long as calls come. calls: that want text. texts: that want vectors."""
        self._models = models
        self._workshop = workshop
        self._calls = calls
        self._texts = texts

    async def Generate(self, request: pb.GenerateRequest, context: object) -> AsyncGenerator[pb.GenerateResponse, None]:
        """A text, as it comes."""
        source, engine = self._models.writer(request.model)
        asked = request.conversation if request.HasField("conversation") else request.prompt
        with self._calls.take(reader()):
            writing = await Writing.begin(source, engine, asked, request.sampling)
            first = True
            async with aclosing(writing.pieces()) as pieces:
                async for piece in pieces:
                    answer = pb.GenerateResponse(
                        text=piece.text, token_count=piece.token_count, logprobs=piece.logprobs
                    )
                    if first:
                        answer.warning = writing.warning
                        answer.provenance.CopyFrom(writing.provenance)
                        first = False
                    if piece.finish:
                        answer.finish_reason = piece.finish
                        answer.usage.CopyFrom(writing.usage)
                    yield answer

    async def GenerateMessage(self, request: pb.GenerateMessageRequest, context: object) -> pb.GenerateMessageResponse:
        """A message of the type that is asked for."""
        source, engine = self._models.writer(request.model)
        answering = Answering(source, engine, request.sampling)
        asked = request.conversation if request.HasField("conversation") else request.prompt
        caller = reader()
        with self._calls.take(caller):
            await answering.check(asked)
            types = self._types(request, caller)
            answer = await answering.answer(asked, await types.find(request.type, field="type"))
        return pb.GenerateMessageResponse(
            message=answer.message,
            repair_count=answer.repair_count,
            warning=answer.warning,
            provenance=answer.provenance,
            usage=answering.usage,
        )

    async def ChooseCall(self, request: pb.ChooseCallRequest, context: object) -> pb.ChooseCallResponse:
        """One of the methods, and its request."""
        source, engine = self._models.writer(request.model)
        answering = Answering(source, engine, request.sampling)
        asked = request.conversation
        caller = reader()
        with self._calls.take(caller):
            await answering.check(asked)
            types = self._types(request, caller)
            candidates = await find_candidates(request.candidates, types)
            summaries = {path: each.summary for path, each in candidates.items()}
            path = await answering.choice(choose_from(asked, summaries), list(candidates))
            chosen = candidates[path]
            answer = await answering.answer(request_for(asked, path, chosen.summary), chosen.request)
        return pb.ChooseCallResponse(
            method=path,
            request=answer.message,
            repair_count=answer.repair_count,
            warning=answer.warning,
            provenance=answer.provenance,
            usage=answering.usage,
        )

    async def Embed(self, request: pb.EmbedRequest, context: object) -> pb.EmbedResponse:
        """A vector for each text."""
        source, embedder = self._models.embedder(request.model)
        caller = reader()
        with self._texts.take(caller, len(request.texts)):
            counts, most = await embedder.count(request.texts, reader=caller), embedder.context_length
            if not request.truncate:
                _check_lengths(counts, most=most)
            found = await embedder.embed(request.texts, reader=caller)
        usage = pb.Usage(input_token_count=sum(min(count, most) for count in counts))
        _cite(source, input_tokens=usage.input_token_count)
        return pb.EmbedResponse(
            vectors=(
                pb.Vector(values=each, is_truncated=count > most) for each, count in zip(found, counts, strict=True)
            ),
            dimension=embedder.dimension,
            warning=source.warning,
            provenance=_provenance(source),
            usage=usage,
        )

    async def CountTokens(self, request: pb.CountTokensRequest, context: object) -> pb.CountTokensResponse:
        """How many tokens it is."""
        caller = reader()
        if self._models.embeds(request.model):
            if request.HasField("conversation"):
                raise _wrong("conversation", "is for a model that writes; this one makes vectors, of a prompt")
            source, embedder = self._models.embedder(request.model)
            with self._texts.take(caller):
                (tokens,) = await embedder.count([request.prompt], reader=caller)
            context_length = embedder.context_length
        else:
            source, engine = self._models.writer(request.model)
            asked = request.conversation if request.HasField("conversation") else request.prompt
            with self._calls.take(caller):
                tokens = len(await engine.read(asked, reader=caller, whole=True))
            context_length = engine.context_length
        # Counted is not read by the model: no tokens are on record for it.
        _cite(source)
        return pb.CountTokensResponse(token_count=tokens, model=source.id, context_length=context_length)

    async def ListModels(self, request: pb.ListModelsRequest, context: object) -> pb.ListModelsResponse:
        """What is served here."""
        return pb.ListModelsResponse(models=self._models.list())

    def _types(self, request: pb.GenerateMessageRequest | pb.ChooseCallRequest, caller: str) -> Types:
        sent = request.descriptors if request.HasField("descriptors") else None
        return Types(sent, self._workshop.visit(caller))


def _check_lengths(counts: Sequence[int], *, most: int) -> None:
    """Raise InvalidCall that names each text that has more tokens."""
    long = [(at, tokens) for at, tokens in enumerate(counts) if tokens > most]
    if long:
        violations = [
            Violation(f"texts[{at}]", f"is {tokens} tokens, and the model reads {most}; or ask to `truncate`")
            for at, tokens in long[:NAMED]
        ]
        first = violations[0]
        raise InvalidCall(f"`{first.field}` {first.description}", violations, reason="INPUT_TOO_LONG")


def _provenance(source: ModelSource) -> pb.Provenance:
    return pb.Provenance(
        model=source.id,
        revision=source.revision,
        weights_digest=source.weights_digest,
        is_placeholder=source.is_placeholder,
    )


def _cite(source: ModelSource, **facts: float) -> None:
    current_call().cite(model=source.id, revision=source.revision, weights=source.weights_digest, **facts)


def _wrong(field: str, words: str) -> InvalidCall:
    return InvalidCall(f"`{field}` {words}", [Violation(field, words)])
