"""Text as a message: written within the type's schema, read, checked by its rules, and mended once.

A message passes so: its type's schema, made to fit what the model can write;
the text, which a grammar holds to it; the message that the text says; the
type's own rules, of which a grammar can't say all. What breaks them goes back to
the model once, with what was wrong. In the end there is a whole, valid message, or an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import any_pb2

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import FailedPrecondition, InvalidCall, Violation
from model_server.engine import Engine, NoGrammarError
from model_server.reader import reader
from model_server.sampling import fill_in
from model_server.source import ModelSource
from model_server.turns import answer_as, mend
from model_server.type_work import Fitting
from model_server.types import TypedType
from model_server.writing import Writing

__all__ = ["Answer", "Answering"]

# Before a type's name in an Any.
URL = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Answer:
    """A message that keeps its type's rules, and what it is from."""

    message: any_pb2.Any
    repair_count: int
    warning: str
    provenance: pb.Provenance


class Answering:
    """What one call asks of a model. usage: of all that was written so far."""

    def __init__(self, source: ModelSource, engine: Engine, sampling: pb.Sampling) -> None:
        """Raises InvalidCall for sampling that only free text can have."""
        for name, is_set in (("stop", bool(sampling.stop)), ("logprobs", sampling.HasField("logprobs"))):
            if is_set:
                words = "is for free text: here a message ends when it is whole"
                raise InvalidCall(f"`sampling.{name}` {words}", [Violation(f"sampling.{name}", words)])
        self.usage = pb.Usage()
        self._source = source
        self._engine = engine
        self._sampling = sampling

    async def check(self, asked: pb.Conversation | str) -> None:
        """Raise InvalidCall if what the caller says, and nothing beside it, leaves no room for what they ask for."""
        self._fill_in(self._sampling, asked, await self._engine.read(asked, reader=reader()))

    async def choice(self, asked: pb.Conversation, candidates: Sequence[str]) -> str:
        """One of some names: at least one. Raises InvalidCall if the engine makes no grammar of them."""
        if len(candidates) == 1:
            return candidates[0]
        schema = json.dumps({"enum": list(candidates)})
        most = max(len(json.dumps(name)) for name in candidates)
        try:
            text, _ = await self._write(asked, await self._engine.read(asked, reader=reader()), schema, most)
        except NoGrammarError as err:
            words = f"the engine makes no grammar of the candidates' names: {err}"
            raise InvalidCall(words, [Violation("candidates", words)], reason="NO_GRAMMAR") from err
        return str(json.loads(text))

    async def answer(self, asked: pb.Conversation | str, wanted: TypedType) -> Answer:
        """A message of the type.

        Raises InvalidCall if the engine makes no grammar of it, and FailedPrecondition if the message was cut, or
        breaks the rules even when mended.
        """
        try:
            return await self._answer(asked, wanted)
        except NoGrammarError as err:
            raise wanted.ungrammatical(err) from err

    async def _answer(self, asked: pb.Conversation | str, wanted: TypedType) -> Answer:
        told, tokens, schema = await self._fit(asked, wanted)
        text, writing = await self._write(told, tokens, schema.schema, schema.max_bytes)
        found = await wanted.read(text)
        repairs = 0
        if found.broken:
            repairs = 1
            again = mend(told, text, found.broken, plain=self._engine.plain)
            text, writing = await self._mend(again, wanted, schema, found.broken)
            found = await wanted.read(text)
        if found.message is None or found.broken:
            raise _rules_broken(wanted, found.broken, "even when mended")
        message = any_pb2.Any(type_url=f"{URL}{wanted.name}", value=found.message)
        return Answer(message, repairs, writing.warning, writing.provenance)

    async def _mend(
        self, asked: pb.Conversation | str, wanted: TypedType, schema: Fitting, broken: Sequence[Violation]
    ) -> tuple[str, Writing]:
        """The text that is written once the model is told what was wrong. Raises FailedPrecondition."""
        try:
            return await self._write(
                asked, await self._engine.read(asked, reader=reader()), schema.schema, schema.max_bytes
            )
        except InvalidCall as err:
            # What the caller sent was no longer than the model reads: what was added is.
            raise _rules_broken(wanted, broken, "and there is no room to have it mended") from err

    async def _fit(
        self, asked: pb.Conversation | str, wanted: TypedType
    ) -> tuple[pb.Conversation | str, Sequence[int], Fitting]:
        """What to ask, its tokens, and the widest schema whose longest message there is room for.

        The model is told the schema if there is room for that too. If there is none even for the narrowest, that one is
        taken: most messages are shorter than the longest.
        """
        tokens = await self._engine.read(asked, reader=reader())
        room = self._engine.context_length - len(tokens)
        if self._sampling.max_tokens:
            room = min(room, self._sampling.max_tokens)
        schema = await wanted.widest(room)
        if isinstance(asked, str):
            return asked, tokens, schema
        told = answer_as(asked, wanted.name, schema.schema)
        try:
            longer = await self._engine.read(told, reader=reader())
        except InvalidCall:
            # What was asked alone, it takes.
            return asked, tokens, schema
        if len(longer) + schema.max_bytes < self._engine.context_length:
            return told, longer, schema
        return asked, tokens, schema

    async def _write(
        self, asked: pb.Conversation | str, tokens: Sequence[int], schema: str, max_bytes: int
    ) -> tuple[str, Writing]:
        """The whole text. Raises FailedPrecondition if it was cut."""
        sampling = pb.Sampling()
        sampling.CopyFrom(self._sampling)
        # A token is a byte at least, and one more ends the text. What is said beside the caller takes room of theirs.
        room = self._engine.context_length - len(tokens)
        sampling.max_tokens = max(1, min(sampling.max_tokens or room, max_bytes + 1, room))
        used = self._fill_in(sampling, asked, tokens)
        writing = Writing(self._source, self._engine, tokens, used)
        text, finish = await writing.text(schema=schema)
        self.usage.input_token_count += writing.usage.input_token_count
        self.usage.output_token_count += writing.usage.output_token_count
        self.usage.cached_token_count += writing.usage.cached_token_count
        if finish == pb.FINISH_REASON_LENGTH:
            raise FailedPrecondition(
                f"the answer was cut after {used.max_tokens} tokens, before it was whole: raise `sampling.max_tokens`, "
                "ask for less, or use a model with a longer context",
                reason="OUTPUT_CUT",
                metadata={"max_tokens": str(used.max_tokens)},
            )
        return text, writing

    def _fill_in(self, sampling: pb.Sampling, asked: pb.Conversation | str, tokens: Sequence[int]) -> pb.Sampling:
        return fill_in(
            sampling,
            self._engine.defaults,
            field="prompt" if isinstance(asked, str) else "conversation",
            input_tokens=len(tokens),
            context=self._engine.context_length,
        )


def _rules_broken(wanted: TypedType, broken: Sequence[Violation], how: str) -> FailedPrecondition:
    first = broken[0]
    words = f"`{first.field}` {first.description}" if first.field else first.description
    return FailedPrecondition(
        f"the model's `{wanted.name}` breaks its rules, {how}: {words}", broken, reason="RULES_BROKEN"
    )
