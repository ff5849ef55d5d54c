"""An engine that writes what it is told to, for what no real model does on demand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from llmesh.api.model.v1 import model_pb2 as pb
from model_server.engine import NoGrammarError, Piece


@dataclass(frozen=True, slots=True)
class Written:
    """One text that was asked for. asked: what it follows."""

    asked: str
    sampling: pb.Sampling
    schema: str


@dataclass(slots=True)
class ScriptedEngine:
    """Writes these texts, one a call; each of its tokens is a byte. cut: they end as if there was no more room.

    grammatical: of so many schemas it makes a grammar.
    """

    texts: list[str]
    cut: bool = False
    grammatical: int = 100
    context_length: int = 100_000
    capabilities: tuple[pb.ModelCapability.ValueType, ...] = (pb.MODEL_CAPABILITY_CONVERSE,)
    dimension: int = 0
    defaults: pb.Sampling = field(default_factory=pb.Sampling)
    written: list[Written] = field(default_factory=list[Written])

    async def read(self, asked: pb.Conversation | str, *, reader: str, whole: bool = False) -> Sequence[int]:
        """Its bytes."""
        if isinstance(asked, str):
            return list(asked.encode())
        return list("\n".join(f"{pb.Role.Name(each.role)}: {each.content}" for each in asked.messages).encode())

    def plain(self, text: str) -> str:
        """The text, without what its model may be taken to read as a control token."""
        return text.replace("<|", "< |")

    async def write(
        self, tokens: Sequence[int], sampling: pb.Sampling, *, reader: str, schema: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """The next text."""
        if len(self.written) >= self.grammatical:
            raise NoGrammarError("no such characters")
        self.written.append(Written(bytes(tokens).decode(), sampling, schema))
        finish = pb.FINISH_REASON_LENGTH if self.cut else pb.FINISH_REASON_STOP
        text = self.texts.pop(0)
        yield Piece(text, len(text), finish, cached_token_count=0)

    async def wait_for_death(self) -> None:
        """It lives."""
        raise NotImplementedError

    async def close(self) -> None:
        """It has nothing to end."""
