"""The models that are served here, from their files to what runs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import FailedPrecondition, InvalidCall, Violation
from llmesh.readiness import Readiness
from model_server.engine import Embedder, Engine, Mortal
from model_server.keeper import Keeper
from model_server.source import ModelSource

__all__ = ["Models", "Served"]

log = logging.getLogger("llmesh.model")

T = TypeVar("T", bound=Mortal)


class Served(Generic[T]):
    """One model, and what runs it while it does.

    id: what requests name it by. known: what ran last, for what it says of the
    model; None before the first.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[], Awaitable[ModelSource]],
        start: Callable[[ModelSource], Awaitable[T]],
    ) -> None:
        """name: its id. find: its files, which may take long. start: what runs it."""
        self.id = name
        self.known: T | None = None
        self._find = find
        self._start = start
        self._source: ModelSource | None = None
        self._readiness = Readiness()
        self._keeper = Keeper(name, self._begin, tell=self._tell)

    @property
    def source(self) -> ModelSource | None:
        """Its files; None before they were found."""
        return self._source

    @property
    def restarts(self) -> int:
        """How often what runs it ended, and another one was ready."""
        return self._keeper.restarts

    @property
    def ready(self) -> bool:
        """Whether it answers now."""
        return bool(self._readiness.of(self.id))

    def current(self) -> tuple[ModelSource, T]:
        """Its files and what runs it. Raises Unavailable while nothing does."""
        running = self._keeper.current
        if self._source is None:
            raise self._keeper.away()
        return self._source, running

    async def run(self, readiness: Readiness) -> None:
        """Keep it running until cancelled, and say in the readiness whether it does, by its id."""
        self._readiness = readiness
        await self._keeper.run()

    async def _begin(self) -> T:
        if self._source is None:
            self._source = await self._find()
            if self._source.warning:
                log.warning(self._source.warning, extra={"model": self.id})
        self.known = await self._start(self._source)
        return self.known

    def _tell(self, ready: bool) -> None:  # noqa: FBT001 a state, told as it changes
        self._readiness.tell(self.id, ready=ready)


class Models:
    """All of them: one that writes, one that makes vectors. Run while entered.

    readiness: of each, by its id.
    """

    def __init__(self, writer: Served[Engine], embedder: Served[Embedder]) -> None:
        """Their ids differ."""
        self._writer = writer
        self._embedder = embedder
        self.readiness = Readiness((writer.id, embedder.id))
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to start them."""
        tasks = await self._running.enter_async_context(asyncio.TaskGroup())
        for each in (self._writer, self._embedder):
            task = tasks.create_task(each.run(self.readiness), name=each.id)
            self._running.callback(task.cancel)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End them."""
        await self._running.aclose()

    def writer(self, asked: str) -> tuple[ModelSource, Engine]:
        """The model that writes, if it is the one that is asked for, or none is. Raises MeshError."""
        self._check(asked, self._writer.id, able="write")
        return self._writer.current()

    def embedder(self, asked: str) -> tuple[ModelSource, Embedder]:
        """The model that makes vectors, if it is the one that is asked for, or none is. Raises MeshError."""
        self._check(asked, self._embedder.id, able="make vectors")
        return self._embedder.current()

    def embeds(self, asked: str) -> bool:
        """Whether that is the id of the model that makes vectors."""
        return asked == self._embedder.id

    def list(self) -> Iterator[pb.Model]:
        """Each of them, in order of their ids."""
        listed: tuple[Served[Engine] | Served[Embedder], ...] = (self._writer, self._embedder)
        for each in sorted(listed, key=lambda one: one.id):
            yield _listed(each, each.known)

    def __iter__(self) -> Iterator[Served[Engine] | Served[Embedder]]:
        """Each of them."""
        return iter((self._writer, self._embedder))

    def _check(self, asked: str, known: str, *, able: str) -> None:
        if asked in ("", known):
            return
        if asked in (self._writer.id, self._embedder.id):
            raise FailedPrecondition(f"the model `{asked}` does not {able}; `{known}` does", reason="UNABLE")
        words = f"there is no model `{asked}` here; that which can {able} is `{known}`"
        raise InvalidCall(f"`model`: {words}", [Violation("model", words)], reason="UNKNOWN_MODEL")


def _listed(served: Served[Engine] | Served[Embedder], known: Engine | Embedder | None) -> pb.Model:
    listed = pb.Model(id=served.id, ready=served.ready)
    if (source := served.source) is not None:
        listed.MergeFrom(
            pb.Model(
                revision=source.revision,
                weights_digest=source.weights_digest,
                is_placeholder=source.is_placeholder,
                warning=source.warning,
            )
        )
    if known is not None:
        listed.context_length = known.context_length
        listed.capabilities.extend(known.capabilities)
        listed.dimension = known.dimension
    return listed
