"""What the server asks of what runs a model: the one seam between the contract and vLLM, or whatever is in its place.

Errors are those of a call: what an engine raises is what the caller is told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmesh.api.model.v1 import model_pb2 as pb

__all__ = ["Embedder", "Engine", "Mortal", "NoGrammarError", "Piece"]


class NoGrammarError(Exception):
    """The engine cannot hold a text to a schema. The message says why, in its words; it goes on all the same."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What an engine has written since its last piece.

    It fits a message: see GenerateResponse. text: may be empty although there
    are tokens, as where they are part of a character. logprobs: one for each token, if they were asked for. finish: why
    it ends here; FINISH_REASON_UNSPECIFIED of all pieces but the last.
    cached_token_count: of the input, what the engine still knew.
    """

    text: str
    token_count: int
    finish: pb.FinishReason.ValueType
    cached_token_count: int
    logprobs: tuple[pb.TokenLogprobs, ...] = ()


class Mortal(Protocol):
    """What runs a model, may die, and is closed.

    context_length: tokens that the model reads and writes in one call.
    capabilities: what it can do. dimension: how many numbers its vectors have;
    0 if it makes none.
    """

    context_length: int
    capabilities: tuple[pb.ModelCapability.ValueType, ...]
    dimension: int

    async def wait_for_death(self) -> None:
        """Return when it can do nothing any more, be it that it hangs; never, if it can't die by itself."""
        ...

    async def close(self) -> None:
        """End it, and every process of its own. What it does for others fails with Unavailable."""
        ...


class Engine(Mortal, Protocol):
    """A model that writes, ready to.

    defaults: how its makers want tokens to be picked; what they don't say is unset.
    """

    defaults: pb.Sampling

    async def read(self, asked: pb.Conversation | str, *, reader: str, whole: bool = False) -> Sequence[int]:
        """The tokens of a conversation in the model's template, or of a prompt. whole: however many they are.

        reader: whom it is for; of each, one that is long is read at a time, beside one that was left while it was.
        What a message says is read as by `plain`: the template alone marks turns. A prompt is read as it is.

        Raises InvalidCall, which names the input as a field, if it is longer
        than the model reads and not to be read whole, or the template does not
        take it, and FailedPrecondition if the model has none.
        """
        ...

    def plain(self, text: str) -> str:
        """The text, with nothing in it that the model's tokenizer takes for a control token; as it is, if none was."""
        ...

    def write(
        self, tokens: Sequence[int], sampling: pb.Sampling, *, reader: str, schema: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """What follows these tokens, as it comes. sampling: with nothing left open but seed and logprobs.

        reader: whom the text is for; what the engine keeps of it speeds up
        texts for the same reader alone, so that nobody learns by it what others
        have asked. schema: a JSON Schema that the text must fit, without any whitespace;
        empty for none. To close the generator frees the engine of it at once; a
        reader who is slow gets larger pieces. Raises InvalidCall for what the
        model can't take, NoGrammarError for a schema that it can't be held to,
        OverQuota if too many wait, Unavailable if the engine dies.
        """
        ...


class Embedder(Mortal, Protocol):
    """A model that makes vectors, ready to."""

    async def count(self, texts: Sequence[str], *, reader: str) -> Sequence[int]:
        """How many tokens each text is, as many as there are. reader: whom it is for; a batch of each has its turn."""
        ...

    async def embed(self, texts: Sequence[str], *, reader: str) -> Sequence[Sequence[float]]:
        """A vector of length 1 for each text, in their order; of one that is too long, of its beginning.

        reader: as for `count`.
        """
        ...
