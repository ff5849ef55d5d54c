"""One text that is being written: what it follows, how, and what it has taken so far."""

from __future__ import annotations

import array
import hashlib
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.call import current_call
from model_server.engine import Engine, Piece
from model_server.reader import reader
from model_server.sampling import fill_in
from model_server.source import ModelSource

__all__ = ["Writing"]


class Writing:
    """A text, from the tokens that it follows to its end.

    sampling: as it is used. usage: of the pieces so far, of all attempts.
    provenance and warning: for the answer.
    """

    def __init__(self, source: ModelSource, engine: Engine, tokens: Sequence[int], sampling: pb.Sampling) -> None:
        """sampling: filled in."""
        self._engine = engine
        self._tokens = tokens
        self.sampling = sampling
        self.usage = pb.Usage()
        self.warning = source.warning
        self.provenance = pb.Provenance(
            model=source.id,
            revision=source.revision,
            weights_digest=source.weights_digest,
            prompt_digest=_digest(tokens),
            sampling=sampling,
            is_placeholder=source.is_placeholder,
        )

    @classmethod
    async def begin(
        cls, source: ModelSource, engine: Engine, asked: pb.Conversation | str, sampling: pb.Sampling
    ) -> Writing:
        """What is asked, read, and found to fit the model. Raises InvalidCall if it doesn't."""
        tokens = await engine.read(asked, reader=reader())
        used = fill_in(
            sampling,
            engine.defaults,
            field="prompt" if isinstance(asked, str) else "conversation",
            input_tokens=len(tokens),
            context=engine.context_length,
        )
        return cls(source, engine, tokens, used)

    async def pieces(self, *, schema: str = "") -> AsyncGenerator[Piece, None]:
        """The text as it comes, as the engine writes it; cited once it has ended, however it did."""
        self.usage.input_token_count += len(self._tokens)
        try:
            async with aclosing(self._write(schema)) as pieces:
                async for piece in pieces:
                    self.usage.output_token_count += piece.token_count
                    self.usage.cached_token_count = max(self.usage.cached_token_count, piece.cached_token_count)
                    yield piece
        finally:
            self._cite()

    async def text(self, *, schema: str = "") -> tuple[str, pb.FinishReason.ValueType]:
        """The whole text, and why it ends."""
        parts: list[str] = []
        finish: pb.FinishReason.ValueType = pb.FINISH_REASON_UNSPECIFIED
        async with aclosing(self.pieces(schema=schema)) as pieces:
            async for piece in pieces:
                parts.append(piece.text)
                finish = piece.finish
        return "".join(parts), finish

    def _write(self, schema: str) -> AsyncGenerator[Piece, None]:
        return self._engine.write(self._tokens, self.sampling, reader=reader(), schema=schema)

    def _cite(self) -> None:
        """Say in the call's provenance what the text is from, and what it took."""
        used = self.sampling
        facts: dict[str, str | float | bool] = {
            "model": self.provenance.model,
            "revision": self.provenance.revision,
            "weights": self.provenance.weights_digest,
            "prompt": self.provenance.prompt_digest,
            "temperature": used.temperature,
            "top_p": used.top_p,
            "top_k": used.top_k,
            "max_tokens": used.max_tokens,
            "stops": len(used.stop),
            "input_tokens": self.usage.input_token_count,
            "output_tokens": self.usage.output_token_count,
        }
        if used.HasField("seed"):
            facts["seed"] = used.seed
        if self.provenance.is_placeholder:
            facts["placeholder"] = True
        current_call().cite(**facts)


def _digest(tokens: Sequence[int]) -> str:
    numbers = array.array("I", tokens)
    if sys.byteorder == "big":
        numbers.byteswap()
    return f"sha256:{hashlib.sha256(numbers.tobytes()).hexdigest()}"
