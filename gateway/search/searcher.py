"""Searches the newest catalog for a caller: over what that caller sees, and nothing else.

What tools mean is learnt in the background, and nothing waits for it: until
then, and wherever the model server is away or slow, words alone decide, and
the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.catalog import Catalog, Tool
from gateway.clock import Clock
from gateway.search.embedding import why_not
from gateway.search.learner import Learner
from gateway.search.texts import meanings_of, words_of
from governance.words import Caller
from llmesh.embedding import MODELS, Embedded, NotEmbeddedError
from llmesh.errand import Errand

# These bring numpy, which a gateway need not wait for at its start.
if TYPE_CHECKING:
    from gateway.search.index import Entry, Index
    from gateway.search.ranking import Flags
    from gateway.search.vectors import Vector, Vectors

__all__ = ["Found", "Searcher"]

log = logging.getLogger(__name__)

Sees = Callable[[Tool, Caller], object | None]
"""What a caller sees of a tool; None for one that the caller does not see."""

# Looked at in one go, before others have a turn.
_TOOLS_A_TURN = 50
# Callers of whom it is remembered what they see; those kept first are forgotten first.
_CALLERS = 256
# After the model server failed, until it is asked again: one search in so long waits for it in vain.
REST_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: service names and scores, above 0 to 1, best first; they compare within one search.

    words_alone: why only words were compared, for people; empty where meanings were too. model: the one that meanings
    were compared by; empty if none.
    """

    hits: list[tuple[str, float]]
    words_alone: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class _Shelf:
    """A catalog, its tools with what each is found by, and the index of them."""

    catalog: Catalog
    entries: Mapping[str, tuple[Tool, Entry]]
    index: Index


class Searcher:
    """Searches; makes the index again only when tools' words or meanings changed."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        sees: Sees,
        learner: Learner,
        *,
        rules: Callable[[], object],
        clock: Clock,
        unsearched: Collection[str] = (),
    ) -> None:
        """Start without an index; the first search makes it.

        catalog: the newest. rules: the same object for as long as nothing else changes what callers see of a tool.
        unsearched: tools that nothing finds.
        """
        self._catalog = catalog
        self._sees = sees
        self._learner = learner
        self._rules = rules
        self._clock = clock
        self._unsearched = unsearched
        self._shelf: _Shelf | None = None
        self._making = Errand(self._make)
        self._seen: dict[Caller, tuple[int, object, Flags]] = {}
        self._rests_until_s = 0.0
        # Wakes `run`. again: the model that has taken another's place.
        self._woken = asyncio.Event()
        self._again = ""

    async def search(self, caller: Caller, query: str, embed: Callable[[str], Awaitable[Embedded]]) -> Found:
        """What the caller sees that fits. embed: gives the query's vector, or raises NotEmbeddedError."""
        try:
            meaning, model = await self._meaning(query, embed)
            reason = ""
        except NotEmbeddedError as err:
            meaning, model, reason = None, "", str(err)
        shelf = await self._fresh()
        among = await self._among(shelf, caller)
        if meaning is not None:
            known = model == shelf.index.vectors.model
            if not known or shelf.index.lacks(among):
                reason = "what some tools mean is still being learnt"
            if not known:
                meaning, model = None, ""
        return Found(shelf.index.rank(query, among, meaning), reason, model)

    async def _meaning(self, query: str, embed: Callable[[str], Awaitable[Embedded]]) -> tuple[Vector, str]:
        """The query's vector, and the model that made it."""
        from gateway.search.vectors import read

        if reason := why_not(self._catalog().tools.get(MODELS)):
            raise NotEmbeddedError(reason)
        if self._clock.monotonic_s() < self._rests_until_s:
            raise NotEmbeddedError("the model server did not answer a moment ago")
        try:
            made = await embed(query)
        except NotEmbeddedError as err:
            if err.away:
                self._rests_until_s = self._clock.monotonic_s() + REST_S
            raise
        vectors = await self._learner.vectors()
        if made.model != vectors.model:
            self._again = made.model
            self._woken.set()
        return read(made.vectors)[0], made.model

    async def run(self, changes: AsyncIterator[object]) -> None:
        """Learn what tools mean, until cancelled. changes: tells of each newer catalog."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(changes))
            while True:
                await self._woken.wait()
                self._woken.clear()
                if not await self._learn():
                    await self._clock.sleep(REST_S)
                    self._woken.set()

    async def _follow(self, changes: AsyncIterator[object]) -> None:
        async for _ in changes:
            self._woken.set()

    async def _learn(self) -> bool:
        """Learn what can be learnt now; False if it is to be tried again."""
        if why_not(self._catalog().tools.get(MODELS)):
            # The catalog changes once there is one.
            return True
        again, self._again = self._again, ""
        shelf = await self._fresh()
        try:
            await self._learner.learn((entry for _, entry in shelf.entries.values()), again=again)
        except NotEmbeddedError as err:
            log.warning("tools' meanings were not learnt", extra={"reason": str(err)})
            return False
        return True

    async def _fresh(self) -> _Shelf:
        """The shelf of the newest catalog, with the vectors that there are."""
        shelf, wanted, vectors = self._shelf, self._catalog(), await self._known()
        if shelf and shelf.catalog.version >= wanted.version and shelf.index.vectors is vectors:
            return shelf
        return await self._making.result()

    async def _make(self) -> _Shelf:
        catalog, vectors, shelf = self._catalog(), await self._known(), self._shelf
        if shelf is None or catalog.version > shelf.catalog.version:
            # A tool takes up to a millisecond.
            shelf = await asyncio.to_thread(_read, shelf, catalog, self._unsearched, vectors)
        elif shelf.index.vectors is not vectors:
            shelf = replace(shelf, index=await asyncio.to_thread(shelf.index.with_, vectors))
        self._shelf = shelf
        return shelf

    async def _known(self) -> Vectors:
        """The vectors to search with; none where the mesh has no model server, and they are of no use."""
        from gateway.search.vectors import NONE

        return await self._learner.vectors() if MODELS in self._catalog().tools else NONE

    async def _among(self, shelf: _Shelf, caller: Caller) -> Flags:
        """Which of the shelf's tools the caller sees."""
        import numpy as np

        rules = self._rules()
        kept = self._seen.get(caller)
        if kept is not None and kept[0] == shelf.catalog.version and kept[1] is rules:
            return kept[2]
        seen: list[bool] = []
        for tool, _ in shelf.entries.values():
            seen.append(self._sees(tool, caller) is not None)
            if len(seen) % _TOOLS_A_TURN == 0:
                # Others have calls to answer.
                await asyncio.sleep(0)
        flags = np.array(seen, dtype=np.bool_)
        while len(self._seen) >= _CALLERS:
            del self._seen[next(iter(self._seen))]
        self._seen[caller] = (shelf.catalog.version, rules, flags)
        return flags


def _read(before: _Shelf | None, catalog: Catalog, unsearched: Collection[str], vectors: Vectors) -> _Shelf:
    """The shelf of a catalog; of a tool that says of itself what it said before, nothing is read again."""
    from gateway.search.index import Index

    old: Mapping[str, tuple[Tool, Entry]] = before.entries if before else {}
    entries = {
        tool.service: (tool, _entry(old.get(tool.service), tool))
        for tool in catalog.tools.values()
        if tool.service not in unsearched
    }
    found = {service: entry for service, (_, entry) in entries.items()}
    if before is None or found.keys() != old.keys() or any(old[name][1] is not found[name] for name in found):
        return _Shelf(catalog, entries, Index(found, vectors))
    same = before.index if before.index.vectors is vectors else before.index.with_(vectors)
    return _Shelf(catalog, entries, same)


def _entry(before: tuple[Tool, Entry] | None, tool: Tool) -> Entry:
    from gateway.search.index import Entry
    from gateway.search.vectors import key_of

    if before is not None:
        old, entry = before
        if (old.domain, old.contract.digest, old.sheet) == (tool.domain, tool.contract.digest, tool.sheet):
            return entry
    return Entry(words_of(tool), {key_of(text): text for text in meanings_of(tool)})
