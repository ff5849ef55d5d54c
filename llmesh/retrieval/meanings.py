"""What a tool's passages mean: learnt from the mesh's model server in the background, and kept on disk.

Nothing waits for it. Until all is learnt, and wherever the model server is
away, slow or another one, the index that there is answers for what it knows,
or words alone do, and the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc
import numpy as np

from llmesh.embedding import Embedded, NotEmbeddedError, embed, embed_query
from llmesh.errors import DeadlineExceeded, Denied, MeshError, OverQuota, Unavailable, Unimplemented
from llmesh.retrieval.asked import Asked, Meaning
from llmesh.retrieval.kept import Kept
from llmesh.retrieval.nearest import Nearest, Vector
from llmesh.retrieval.passages import Passages

__all__ = ["Calls", "Meanings"]

log = logging.getLogger(__name__)

LEARNING = "what the passages mean is still being learnt"
UNLEARNT = "what the passages mean could not be learnt"
PARTLY = "what some passages mean is still being learnt"
# Texts a call, and rest after it as a multiple of its time: others' calls have most of the model server's.
BATCH, REST = 16, 3.0
_BATCH_TIMEOUT_S = 60.0
# Why the model server makes no vectors that passes, or that others have decided.
_WAITED_FOR = (DeadlineExceeded, Denied, OverQuota, Unavailable, Unimplemented)
# After a failure, until it is tried again: twice as long each time, up to 160 s.
PAUSE_S, _DOUBLINGS = 10.0, 4


class Calls(Protocol):
    """Calls in the tool's own right: llmesh.OwnMesh."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """What stubs take. Raises Unavailable while there is none."""
        ...


class Meanings(AbstractAsyncContextManager["Meanings"]):
    """The meanings of one tool's passages: `llmesh.serve(..., beside=meanings)` learns them while it serves."""

    def __init__(
        self,
        folder: Path,
        own_mesh: Calls,
        passages: Callable[[], Awaitable[Passages]],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """folder: where they are kept; made when there is something to keep, and may be deleted at any time.

        own_mesh: by which passages are embedded. passages: gives those that there are now; asked at the start.
        """
        self._own_mesh = own_mesh
        self._passages = passages
        self._pause = pause
        self._now = now
        self._kept = Kept(folder)
        self._wanted: Passages | None = None
        self._index: Nearest | None = None
        # What the index is of; None if it is of others, or not known yet.
        self._learnt: Passages | None = None
        # The model that last made a vector.
        self._model = ""
        # The vectors of a build that broke off, and their model: a disk that fails has none of them.
        self._made: tuple[str, dict[bytes, Vector]] = "", {}
        self._why = LEARNING
        self._rests_until_s = 0.0
        self._woken = asyncio.Event()
        self._woken.set()
        self._is_read = False
        self._failures = 0
        self._waits = False
        # The last that was told in the log.
        self._fault = ""
        self._running: asyncio.Task[None] | None = None
        # A thread that builds an index goes on when its task is cancelled.
        self._stopped = threading.Event()

    async def ask(self, query: str, passages: Passages) -> Asked:
        """What is meant by the caller of the call that is being answered: half a second at most, half of what is left.

        passages: those that there are now. Others than before are learnt, and these forgotten once that is done; the
        same object costs nothing.
        """
        if passages is not self._wanted:
            self._wanted = passages
            self._woken.set()
        index = self._index
        if index is None:
            return Asked(words_alone=self._why)
        if self._now() < self._rests_until_s:
            return Asked(words_alone="the model server did not answer a moment ago")
        try:
            made = await embed_query(query)
        except NotEmbeddedError as err:
            if err.away:
                self._rests_until_s = self._now() + PAUSE_S
            return Asked(words_alone=str(err))
        if made.model != index.model:
            self._replaced(made.model)
            return Asked(words_alone=LEARNING)
        return Asked(Meaning(_row(made.vectors[0]), index), "" if self._learnt is passages else PARTLY)

    async def __aenter__(self) -> Self:
        """Begin to learn."""
        self._running = asyncio.create_task(self._run(), name="llmesh meanings")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what was learnt is kept."""
        self._stopped.set()
        if self._running:
            self._running.cancel()
            await asyncio.wait((self._running,))

    def _replaced(self, model: str) -> None:
        if model != self._model:
            self._model = model
            self._woken.set()

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._learn()
            except NotEmbeddedError as err:
                self._failed(str(err), waits=err.away)
            except Exception as err:  # noqa: BLE001 whatever is wrong here must not cost the tool its words
                self._failed(UNLEARNT, fault=err)
            else:
                self._failures, self._waits, self._fault = 0, False, ""
                continue
            await self._pause(PAUSE_S * 2 ** min(self._failures, _DOUBLINGS))
            self._failures += 1
            self._woken.set()

    def _failed(self, why: str, *, waits: bool = False, fault: Exception | None = None) -> None:
        """why: for callers. waits: for the model server, as where it starts after the tool. That is said once.

        fault: what is for the log alone.
        """
        reason = repr(fault) if fault else why
        if waits and not self._waits:
            log.info("passages are found by words alone until the model server is there", extra={"reason": reason})
        elif not waits and reason != self._fault:
            log.warning("passages' meanings were not learnt", extra={"reason": reason}, exc_info=fault)
            self._fault = reason
        self._why, self._waits = why, waits

    async def _learn(self) -> None:
        """Make the index of what is wanted, unless it is there. Raises NotEmbeddedError, and what `passages` does."""
        if not self._is_read:
            await self._read()
        if self._wanted is None:
            self._wanted = await self._passages()
        wanted, before = self._wanted, self._index
        if not wanted.texts:
            return
        if before and before.model == self._model and before.rows.keys() == wanted.texts.keys():
            self._learnt = wanted
            return
        vectors = await self._vectors(wanted)
        if vectors is None:
            # Others are wanted by now, or of another model.
            self._woken.set()
            return
        began_s, model = self._now(), self._model
        index = await asyncio.to_thread(Nearest.build, model, vectors, goes_on=lambda: not self._stopped.is_set())
        self._index, self._learnt, self._why = index, wanted, LEARNING
        self._made = "", {}
        await self._kept.put(index)
        log.info("passages' meanings learnt", extra={"texts": len(vectors), "model": model})
        await self._pause(REST * (self._now() - began_s))

    async def _read(self) -> None:
        """What was learnt by those before us."""
        self._index = await self._kept.index()
        self._model = self._index.model if self._index else await self._kept.model()
        self._is_read = True

    async def _embed(self, texts: Sequence[str]) -> Embedded:
        try:
            made = await embed(self._own_mesh.channel, texts, timeout_s=_BATCH_TIMEOUT_S)
        except MeshError as err:
            away = isinstance(err, _WAITED_FOR)
            raise NotEmbeddedError(f"the passages were not embedded: {err.message}", away=away) from err
        # Whatever kept it from that before does so no more.
        self._why = LEARNING
        return made

    async def _vectors(self, wanted: Passages) -> dict[bytes, Vector] | None:
        """All that are wanted, by one model; None if meanwhile others are, or another one is there."""
        model = self._model
        known = await self._known(model, wanted)
        # Those of one length together: a batch takes as long as if all its texts were as long as the longest.
        missing = iter(sorted(wanted.texts.keys() - known.keys(), key=lambda key: (len(wanted.texts[key]), key)))
        while batch := list(islice(missing, BATCH)):
            began_s = self._now()
            made = await self._embed([wanted.texts[key] for key in batch])
            vectors = dict(zip(batch, map(_row, made.vectors), strict=True))
            await self._kept.add(made.model, vectors)
            known = known if made.model == model else {}
            known |= vectors
            self._made = made.model, known
            await self._pause(REST * (self._now() - began_s))
            self._model = made.model
            if self._model != model or self._wanted is not wanted:
                return None
        return known if self._model == model else None

    async def _known(self, model: str, wanted: Passages) -> dict[bytes, Vector]:
        """Those that are wanted and were made by the model, as memory or else the disk has them."""
        made_by, made = self._made
        known = dict(made) if made_by == model else {}
        if self._index and self._index.model == model:
            known |= {key: self._index.vectors[row] for key, row in self._index.rows.items()}
        known = {key: vector for key, vector in known.items() if key in wanted.texts}
        return known | await self._kept.vectors(model, wanted.texts.keys() - known.keys())


def _row(vector: Sequence[float]) -> Vector:
    return np.array(vector, dtype=np.float32)
