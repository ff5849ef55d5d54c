"""What Envoy should hold, and what becomes of it when Envoy refuses a part.

A resource that Envoy refuses goes back to the last version we know it to have
accepted; routes that follow other rules than those in force go back to none at
all. Where we know of no such version, as after a start, or Envoy refuses that
too, it keeps what it holds.
The tool's owner hears Envoy's words; everything else proceeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from gateway.snapshot.build import ROUTES, Resource, Resources, closed

log = logging.getLogger(__name__)

Key = tuple[str, str]
# Type URL -> names, in the order in which they came, of what a stream has to look at.
Stale = Mapping[str, dict[str, None]]


class Publisher:
    """The resources to be served now. One writer publishes; streams read `wanted` and report back.

    on_refused(name, words): Envoy refused the newest version of a resource.
    on_accepted(name): it took a version of one that it had refused before.
    """

    def __init__(self, *, on_refused: Callable[[str, str], None], on_accepted: Callable[[str], None]) -> None:
        """Start with nothing to serve."""
        self._newest: Resources = MappingProxyType({})
        self._accepted: dict[Key, Resource] = {}
        # Versions that Envoy refused since it last took the newest, and its words on the newest of them.
        self._refused: dict[Key, set[str]] = {}
        self._words: dict[Key, str] = {}
        # The rules in force, and routes of which what Envoy accepted last follows others.
        self._rules = ""
        self._outdated: set[Key] = set()
        self._on_refused = on_refused
        self._on_accepted = on_accepted
        self._changed = asyncio.Condition()
        self._revision = 0
        # For those who run the mesh: Envoys connected, responses sent by type URL, resources refused since the start.
        self.streams = 0
        self.pushes = Counter[str]()
        self.nacks = 0
        # The last revision that an Envoy has answered for, and how often one took or refused something.
        self._served = self._answers = 0
        self._followers: list[dict[str, dict[str, None]]] = []

    @contextmanager
    def follow(self) -> Generator[Stale]:
        """The names of all there is, to which each one is added whenever what is wanted of it may have changed.

        Who follows takes out what it has seen to: a change of one among thousands costs what changed.
        """
        stale = defaultdict[str, dict[str, None]](dict)
        for url, resources in self._newest.items():
            stale[url].update(dict.fromkeys(resources))
        self._followers.append(stale)
        try:
            yield stale
        finally:
            self._followers.remove(stale)

    def _touch(self, url: str, names: Iterable[str]) -> None:
        for stale in self._followers:
            stale[url].update(dict.fromkeys(names))

    def wanted(self, url: str) -> Mapping[str, Resource]:
        """What Envoy should hold of one type: the newest, save where it refused that very version."""
        newest = self._newest.get(url, {})
        if not self._refused:
            return newest
        kept = {name: self._usable((url, name), resource) for name, resource in newest.items()}
        return {name: resource for name, resource in kept.items() if resource is not None}

    def wanted_of(self, url: str, name: str) -> Resource | None:
        """What Envoy should hold of one name; None if nothing is, or nothing that it takes."""
        newest = self._newest.get(url, {}).get(name)
        return None if newest is None else self._usable((url, name), newest)

    def published(self, url: str) -> Collection[str]:
        """Names of one type that have not been taken back, whether or not Envoy took their newest version."""
        return self._newest.get(url, {}).keys()

    def _usable(self, key: Key, newest: Resource) -> Resource | None:
        """The newest version or, where Envoy refused that, another that it may take; None: let it keep what it has."""
        refused = self._refused.get(key, ())
        if newest.version not in refused:
            return newest
        held = closed(key[1]) if key in self._outdated else self._accepted.get(key)
        return None if held is None or held.version in refused else held

    async def publish(self, resources: Resources, *, rules: str = "") -> None:
        """Serve these from now on. rules: a digest of those that the routes follow; empty: the same as before."""
        before, self._newest = self._newest, resources
        for url in before.keys() | resources.keys():
            self._take_over(url, before.get(url, {}), resources.get(url, {}))
        if rules and rules != self._rules:
            self._change_rules(rules)
        for key, refused in list(self._refused.items()):
            held = self._accepted.get(key)
            if held is not None and held.version == self._newest_version(key) and held.version not in refused:
                self._take_back(key)
        await self._announce()

    def _take_over(self, url: str, before: Mapping[str, Resource], after: Mapping[str, Resource]) -> None:
        if before is after:
            return
        changed = [name for name, resource in after.items() if before.get(name) is not resource]
        removed = [name for name in before if name not in after]
        for name in removed:
            # What comes back later comes back as new: an old version of it is nothing to fall back to.
            for kept in (self._accepted, self._refused, self._words):
                kept.pop((url, name), None)
            self._outdated.discard((url, name))
        self._touch(url, (*changed, *removed))

    def _change_rules(self, rules: str) -> None:
        """Let no refusal lead back to routes of other rules, which may permit what is forbidden now."""
        before, self._rules = self._rules, rules
        if not before:
            return
        for name, newest in self._newest.get(ROUTES, {}).items():
            held = self._accepted.get((ROUTES, name))
            if held is None or held.version != newest.version:
                self._outdated.add((ROUTES, name))
                self._touch(ROUTES, [name])

    def _newest_version(self, key: Key) -> str | None:
        resource = self._newest.get(key[0], {}).get(key[1])
        return None if resource is None else resource.version

    def _take_back(self, key: Key) -> None:
        if self._refused.pop(key, None) is not None:
            self._touch(key[0], [key[1]])
            self._on_accepted(key[1])

    async def accepted(self, url: str, names: Mapping[str, Resource]) -> None:
        """Envoy took these versions."""
        for name, resource in names.items():
            key = (url, name)
            self._accepted[key] = resource
            self._refused.get(key, set[str]()).discard(resource.version)
            # The one it went back to is accepted too; that mends nothing.
            if resource.version == self._newest_version(key):
                self._outdated.discard(key)
                self._take_back(key)
        await self._hear()

    async def held(self, url: str, versions: Mapping[str, str]) -> None:
        """An Envoy that connects holds these versions already. versions: resource name -> version."""
        newest = self._newest.get(url, {})
        known = {name: newest[name] for name in versions if name in newest}
        await self.accepted(url, {name: found for name, found in known.items() if found.version == versions[name]})

    async def refused(self, url: str, names: Mapping[str, Resource], words: str) -> None:
        """Envoy refused these versions."""
        self.nacks += len(names)
        for name, resource in names.items():
            key = (url, name)
            self._refused.setdefault(key, set()).add(resource.version)
            log.error("resource refused", extra={"resource": name, "type": url, "envoy": words})
            # That it takes an earlier version no longer is not what its owner can mend.
            if resource.version == self._newest_version(key) or key not in self._words:
                self._words[key] = words
                self._on_refused(name, words)
        self._touch(url, names)
        await self._hear()
        await self._announce()

    @property
    def refused_names(self) -> Mapping[str, bool]:
        """Resources whose newest version Envoy refuses now -> whether it has earlier versions to go on with."""
        names: dict[str, bool] = {}
        for key, refused in self._refused.items():
            held = self._accepted.get(key)
            goes_on = held is not None and held.version not in refused and key not in self._outdated
            names[key[1]] = names.get(key[1], True) and goes_on
        return names

    @property
    def refusals(self) -> list[tuple[str, str, str]]:
        """Resources whose newest version Envoy refuses now: type URL, name, and Envoy's words."""
        return [(*key, self._words[key]) for key in self._refused]

    @property
    def revision(self) -> int:
        """Grows whenever `wanted` may have changed."""
        return self._revision

    async def served(self, revision: int) -> None:
        """An Envoy has answered for everything that was wanted at a revision."""
        async with self._changed:
            self._served = max(self._served, revision)
            self._changed.notify_all()

    async def caught_up(self, *, within_s: float) -> bool:
        """Wait until an Envoy holds what is wanted now. False: none does yet."""
        revision = self._revision
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self._served >= revision)
        except TimeoutError:
            return False
        return True

    async def settled(self, *, silent_s: float) -> bool:
        """Wait until an Envoy holds what is wanted now, for as long as one goes on answering.

        False: none does yet, and none has answered for silent_s: it is away, or waits for what may never come.
        """
        revision = self._revision
        async with self._changed:
            while self._served < revision:
                answers = self._answers
                try:
                    async with asyncio.timeout(silent_s):
                        while self._served < revision and self._answers == answers:
                            await self._changed.wait()
                except TimeoutError:
                    return False
        return True

    async def _hear(self) -> None:
        async with self._changed:
            self._answers += 1
            self._changed.notify_all()

    async def _announce(self) -> None:
        async with self._changed:
            self._revision += 1
            self._changed.notify_all()

    async def revisions(self) -> AsyncGenerator[int]:
        """A number, then another each time `wanted` may have changed; a slow reader skips to the newest."""
        seen = -1
        while True:
            async with self._changed:
                while self._revision == seen:
                    await self._changed.wait()
                seen = self._revision
            yield seen
