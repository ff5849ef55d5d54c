"""From sources to the catalog.

Sources name endpoints; each endpoint has one task that looks at it and tells
what it saw; one writer judges everything seen and posts the catalog that
follows from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from weakref import WeakValueDictionary

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.catalog import Catalog, CatalogBoard, Endpoint, Step
from gateway.clock import Clock
from gateway.discovery.admit import Sighting
from gateway.discovery.judge import Judge, View
from gateway.discovery.memory import LARGE_BYTES, give_back
from gateway.reading.calls import Credentials, no_credentials
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.descriptors import gather
from gateway.reading.pinned import pinned
from gateway.reading.reflect import Limits
from gateway.reading.refusal import Refusal
from gateway.reading.watch import Lanes, Look, Watcher
from gateway.sources import Source
from gateway.state import Remembered, Store
from governance.ownership import Ownership

__all__ = ["Discovery"]

log = logging.getLogger(__name__)

# How long after a change the catalog is kept on disk, with what changed meanwhile; and so many times as long as that
# took the last time, as a large one costs what calls and changes need.
SAVE_AFTER_S = 0.2
SAVE_REST = 10
# What a disk did not take is tried again after so long.
RETRY_S = 1.0

# Large contracts often come, and go, together.
TIDY_S = 2.0


class _Place:
    """What is known of one endpoint; its watcher writes here, the writer reads."""

    def __init__(self, endpoint: Endpoint, desk: Discovery) -> None:
        self.endpoint = endpoint
        self.sighting: Sighting | None = None
        self.failed: Step | None = None
        self.task: asyncio.Task[None] | None = None
        self.size_bytes = 0
        self._desk = desk

    def seen(self, look: Look) -> None:
        self._desk.tidy(max(self.size_bytes, look.size_bytes))
        self.size_bytes = look.size_bytes
        self.failed = None
        last, self.sighting = self.sighting, self._desk.sighting(self.endpoint, look)
        if last is not None:
            # A look that failed takes no tool away.
            kept = [each for each in last.candidates if look.blind or each.service in look.unread]
            checked = last.health_checked.intersection(each.service for each in kept)
            self.sighting = replace(
                self.sighting,
                candidates=(*self.sighting.candidates, *kept),
                health_checked=self.sighting.health_checked | checked,
            )
        self._desk.recheck()

    def lost(self, step: Step) -> None:
        if self.sighting is not None:
            self.sighting = replace(self.sighting, live=False)
        self.failed = step
        self._desk.recheck()

    def health(self, *, live: bool) -> None:
        if self.sighting is not None and self.sighting.live != live:
            self.sighting = replace(self.sighting, live=live)
            self._desk.recheck()


class Discovery:
    """Keeps the catalog true to what the sources name and the endpoints serve."""

    def __init__(
        self,
        board: CatalogBoard,
        sources: Sequence[Source],
        *,
        ownership: Callable[[], Ownership],
        limits: Limits,
        store: Store | None,
        clock: Clock,
        credentials: Credentials = no_credentials,
    ) -> None:
        """ownership: the one in force now; call recheck when it changes. store: None keeps nothing."""
        self.settled = asyncio.Event()
        self._board = board
        self._sources = sources
        self._ownership = ownership
        self._limits = limits
        self._store = store
        self._clock = clock
        self._credentials = credentials
        self._named: dict[int, frozenset[Endpoint]] = {}
        self._places: dict[str, _Place] = {}
        self._remembered: dict[str, Remembered] = {}
        self._judge = Judge()
        # Those that some endpoint shows, by service and version.
        self._candidates = WeakValueDictionary[tuple[str, str], Candidate]()
        self._order = count()
        self._dirty = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._lanes = Lanes(limits.at_once, limits.quick_s)
        # How contracts are read, for those who run the mesh.
        self.looks = self._lanes.looks
        # Why the catalog is not on disk as it is; empty if it is.
        self.unkept = ""
        self._untidy = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. The first catalog is posted when every source has synced."""
        pinned()
        if self._store is not None:
            self._remembered = {each.address: each for each in await asyncio.to_thread(self._store.load)}
        async with asyncio.TaskGroup() as group:
            for number, source in enumerate(self._sources):
                group.create_task(self._follow(number, source, group))
            if not self._sources:
                self._settle(group)
            group.create_task(self._write())
            group.create_task(self._save())
            group.create_task(self._tidy())

    def recheck(self) -> None:
        """Judge everything seen again: the ownership may have changed, or what was seen."""
        self._dirty.set()

    def refuse(self, service: str, reason: str, message: str) -> None:
        """Envoy refused what was published for the tool; message is in its words."""
        step = Step("publish", passed=False, service=service, reason=reason, message=message)
        self._publish(step)

    def accept(self, service: str) -> None:
        """Envoy took what was published for the tool."""
        self._publish(Step("publish", passed=True, service=service))

    def sighting(self, endpoint: Endpoint, look: Look) -> Sighting:
        """A look as admission takes it. Equal candidates are one object, whoever serves them."""
        return Sighting(
            endpoint=endpoint,
            order=next(self._order),
            candidates=tuple(self._one(each) for each in look.candidates),
            steps=look.steps,
            live=look.live,
            health_checked=look.health_checked,
        )

    def _publish(self, step: Step) -> None:
        if self._judge.publish(step):
            self.recheck()

    async def _follow(self, number: int, source: Source, group: asyncio.TaskGroup) -> None:
        async for endpoints in source.watch():
            self._named[number] = endpoints
            if len(self._named) == len(self._sources):
                self._settle(group)

    def _settle(self, group: asyncio.TaskGroup) -> None:
        self._reconcile(group)
        self.settled.set()
        self.recheck()

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        """Start and stop watchers so that there is one for each address named; the first source to name it counts."""
        wanted: dict[str, Endpoint] = {}
        for number in sorted(self._named):
            for endpoint in sorted(self._named[number]):
                wanted.setdefault(endpoint.address, endpoint)
        for address in self._places.keys() - wanted.keys():
            self._stop(self._places.pop(address))
        restored = self._restore(wanted)
        for address, endpoint in wanted.items():
            place = self._places.get(address)
            if place is not None and place.endpoint == endpoint:
                # Whether it is held may have changed all the same.
                place.endpoint = endpoint
                continue
            fresh = _Place(endpoint, self)
            if place is not None:
                self._stop(place)
                fresh.failed = place.failed
                fresh.sighting = self._regrant(place.sighting, endpoint) if place.sighting is not None else None
            else:
                fresh.sighting = restored.get(address)
            self._places[address] = fresh
            watcher = Watcher(
                endpoint,
                fresh,
                limits=self._limits,
                lanes=self._lanes,
                clock=self._clock,
                credentials=self._credentials,
            )
            fresh.task = group.create_task(watcher.run(), name=f"watch {address}")

    def tidy(self, size_bytes: int) -> None:
        """So many bytes of an endpoint's files were read or forgotten: hand back what that took, soon."""
        if size_bytes >= LARGE_BYTES:
            self._untidy.set()

    async def _tidy(self) -> None:
        while True:
            await self._untidy.wait()
            await self._clock.sleep(TIDY_S)
            self._untidy.clear()
            await asyncio.to_thread(give_back)

    def _stop(self, place: _Place) -> None:
        self.tidy(place.size_bytes)
        if place.task is not None:
            place.task.cancel()

    def _regrant(self, sighting: Sighting, endpoint: Endpoint) -> Sighting:
        """What was seen, under what the mesh file now states: that holds at once, before the next look."""
        files = {each.service: each.contract.files for each in sighting.candidates}
        candidates = tuple(self._one(each) for each in _recall(files, endpoint))
        return replace(sighting, endpoint=endpoint, candidates=candidates)

    def _one(self, candidate: Candidate) -> Candidate:
        return self._candidates.setdefault((candidate.service, candidate.version), candidate)

    def _restore(self, wanted: Mapping[str, Endpoint]) -> dict[str, Sighting]:
        """Sightings of endpoints that served tools before this process began, in that order; once only."""
        remembered, self._remembered = self._remembered, {}
        restored: dict[str, Sighting] = {}
        for address, each in remembered.items():
            endpoint = wanted.get(address)
            if endpoint is not None:
                candidates = tuple(_recall(each.services, endpoint))
                look = Look(candidates, (Step("connect", passed=True),), live=True, health_checked=each.health_checked)
                restored[address] = self.sighting(endpoint, look)
        return restored

    async def _write(self) -> None:
        """The catalog's one writer."""
        await self.settled.wait()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            before = self._board.current
            views = [View(each.endpoint, each.sighting, each.failed) for each in self._places.values()]
            after = self._judge.judge(views, before, ownership=self._ownership(), now_s=self._clock.unix_s())
            changed = not _same(before.tools, after.tools)
            if changed or before.version == 0 or not _same(before.reports, after.reports):
                tools = after.tools if changed else before.tools
                _log_changes(before, await self._board.post(tools, after.reports))
            if changed:
                self._unsaved.set()

    async def _save(self) -> None:
        """Keep the catalog on disk, the newest where the disk is slower."""
        took_s = 0.0
        while self._store is not None:
            await self._unsaved.wait()
            try:
                # Tools come many at a time, and first they are to be called.
                await self._clock.sleep(RETRY_S if self.unkept else SAVE_AFTER_S + SAVE_REST * took_s)
            finally:
                self._unsaved.clear()
                began_s = self._clock.monotonic_s()
                await self._save_now(self._store)
                took_s = self._clock.monotonic_s() - began_s

    async def _save_now(self, store: Store) -> None:
        catalog = self._board.current
        saving = asyncio.ensure_future(asyncio.to_thread(lambda: store.save(_remember(catalog))))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            # A thread cannot be stopped: nothing of ours may write after run has returned.
            await asyncio.wait([saving])
            raise
        except OSError as err:
            if not self.unkept:
                log.exception("last good catalog could not be kept")
            self.unkept = str(err)
            self._unsaved.set()
        else:
            self.unkept = ""


def _same(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Whether nothing changed: the judge keeps what is equal as the same object."""
    return before.keys() == after.keys() and all(before[key] is value for key, value in after.items())


def _recall(services: Mapping[str, Sequence[FileDescriptorProto]], endpoint: Endpoint) -> Iterator[Candidate]:
    """What the endpoint served before, taken as still so. What cannot be read is left to the next look."""
    for service, files in services.items():
        try:
            contract = gather(service, files)
            yield read_candidate(service, contract, grant=endpoint.grant_for(service))
        except Refusal as refusal:
            log.warning("remembered contract was unusable", extra={"service": service, "reason": refusal.reason})
        # The edge to what another version of the gateway kept, and to what a stranger sent it.
        except Exception:
            log.exception("remembered contract could not be read", extra={"service": service})


def _remember(catalog: Catalog) -> list[Remembered]:
    services: dict[str, dict[str, Sequence[FileDescriptorProto]]] = {}
    checked: dict[str, set[str]] = {}
    for name, tool in catalog.tools.items():
        for shown in tool.variants or (tool,):
            own = [file for file in shown.contract.files if file.name not in pinned()]
            for endpoint in shown.endpoints:
                services.setdefault(endpoint.address, {})[name] = own
                if tool.health_checked:
                    checked.setdefault(endpoint.address, set()).add(name)
    return [Remembered(address, found, frozenset(checked.get(address, ()))) for address, found in services.items()]


def _log_changes(before: Catalog, after: Catalog) -> None:
    log.info("endpoints were judged", extra={"tools": len(after.tools), "endpoints": len(after.reports)})
    for address, report in after.reports.items():
        last = before.reports.get(address)
        if last is None or last.state is not report.state:
            failed = [f"{step.service or address}: {step.reason}" for step in report.steps if not step.passed]
            log.info("endpoint changed state", extra={"address": address, "state": report.state.name, "failed": failed})
