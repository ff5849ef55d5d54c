"""What Envoy should hold, and what becomes of it when Envoy refuses a part.

A resource that Envoy refuses goes back to the last version we know it to have
accepted. Where we know of none, as after a start, Envoy keeps what it holds.
The tool's owner hears Envoy's words; everything else proceeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from types import MappingProxyType

from gateway.snapshot.build import Resource, Resources

log = logging.getLogger(__name__)

Key = tuple[str, str]


class Publisher:
    """The resources to be served now. One writer publishes; streams read `wanted` and report back.

    on_refused(name, words): Envoy refused the newest version of a resource.
    on_accepted(name): it took a version of one that it had refused before.
    """

    def __init__(self, *, on_refused: Callable[[str, str], None], on_accepted: Callable[[str], None]) -> None:
        """Start with nothing to serve."""
        self._newest: Resources = MappingProxyType({})
        self._accepted: dict[Key, Resource] = {}
        self._refused: dict[Key, str] = {}
        self._on_refused = on_refused
        self._on_accepted = on_accepted
        self._changed = asyncio.Condition()
        self._revision = 0
        # For those who run the mesh: Envoys connected, responses sent by type URL, resources refused since the start.
        self.streams = 0
        self.pushes = Counter[str]()
        self.nacks = 0
        self._served = 0

    def wanted(self, url: str) -> Mapping[str, Resource]:
        """What Envoy should hold of one type: the newest, save where it refused that very version."""
        newest = self._newest.get(url, {})
        if not self._refused:
            return newest
        kept = {name: self._usable((url, name), resource) for name, resource in newest.items()}
        return {name: resource for name, resource in kept.items() if resource is not None}

    def published(self, url: str) -> Collection[str]:
        """Names of one type that have not been taken back, whether or not Envoy took their newest version."""
        return self._newest.get(url, {}).keys()

    def _usable(self, key: Key, resource: Resource) -> Resource | None:
        return self._accepted.get(key) if self._refused.get(key) == resource.version else resource

    async def publish(self, resources: Resources) -> None:
        """Serve these from now on."""
        self._newest = resources
        self._forget_removed()
        for key in list(self._refused):
            held = self._accepted.get(key)
            if held is not None and held.version == self._newest_version(key):
                self._take_back(key)
        await self._announce()

    def _forget_removed(self) -> None:
        # What comes back later comes back as new: an old version of it is nothing to fall back to.
        for kept in (self._accepted, self._refused):
            for key in [key for key in kept if self._newest_version(key) is None]:
                del kept[key]

    def _newest_version(self, key: Key) -> str | None:
        resource = self._newest.get(key[0], {}).get(key[1])
        return None if resource is None else resource.version

    def _take_back(self, key: Key) -> None:
        if self._refused.pop(key, None) is not None:
            self._on_accepted(key[1])

    async def accepted(self, url: str, names: Mapping[str, Resource]) -> None:
        """Envoy took these versions."""
        for name, resource in names.items():
            key = (url, name)
            self._accepted[key] = resource
            # The one it went back to is accepted too; that mends nothing.
            if resource.version == self._newest_version(key):
                self._take_back(key)

    async def held(self, url: str, versions: Mapping[str, str]) -> None:
        """An Envoy that connects holds these versions already. versions: resource name -> version."""
        newest = self._newest.get(url, {})
        known = {name: newest[name] for name in versions if name in newest}
        await self.accepted(url, {name: found for name, found in known.items() if found.version == versions[name]})

    async def refused(self, url: str, names: Mapping[str, Resource], words: str) -> None:
        """Envoy refused these versions."""
        self.nacks += len(names)
        for name, resource in names.items():
            self._refused[url, name] = resource.version
            log.error("resource refused", extra={"resource": name, "type": url, "envoy": words})
            self._on_refused(name, words)
        await self._announce()

    @property
    def refused_names(self) -> Mapping[str, bool]:
        """Resources whose newest version Envoy refuses now -> whether it has earlier versions to go on with."""
        names: dict[str, bool] = {}
        for key in self._refused:
            names[key[1]] = names.get(key[1], True) and key in self._accepted
        return names

    @property
    def refused_count(self) -> int:
        """Resources whose newest version Envoy refuses now."""
        return len(self._refused)

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
