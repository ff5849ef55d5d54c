"""Endpoints that tools take leases for: who stops renewing is gone.

Leases survive a restart of the gateway: each is then as good as new, so a
tool that lives renews it in time and one that died meanwhile runs out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.catalog import Endpoint
from gateway.clock import Clock
from llmesh.home import write_atomically

__all__ = ["Lease", "Leases"]

log = logging.getLogger(__name__)

TTL_S = 10.0
NAME = "lease"
ID_BYTES = 16

# Lease id -> address.
KEPT = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class Lease:
    """A place in the mesh. id: a secret of its holder. ttl_s: how long it lasts from when it was given or renewed."""

    id: str
    address: str
    ttl_s: float


class Leases:
    """The leases of one gateway; a source of endpoints."""

    def __init__(self, path: Path, *, clock: Clock, ttl_s: float = TTL_S) -> None:
        """Take up the leases kept at the path, each for a whole ttl_s; an unusable file counts as none."""
        self._path = path
        self._clock = clock
        self._ttl_s = ttl_s
        self._leases = {key: Lease(key, address, ttl_s) for key, address in _load(path).items()}
        self._end_s = dict.fromkeys(self._leases, clock.monotonic_s() + ttl_s)
        self._changed = asyncio.Event()
        self._saving = asyncio.Lock()

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._leases)

    async def register(self, address: str) -> Lease:
        """A new lease, kept on disk if that can be; an address that has one already gets this one in its place."""
        lease = Lease(secrets.token_hex(ID_BYTES), address, self._ttl_s)
        for each in [each for each in self._leases.values() if each.address == address]:
            self._drop(each.id)
        self._leases[lease.id] = lease
        self._end_s[lease.id] = self._clock.monotonic_s() + self._ttl_s
        self._changed.set()
        await self._save()
        return lease

    async def renew(self, lease_id: str) -> Lease | None:
        """The lease, for another ttl_s from now; None if it has ended."""
        self._expire()
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._end_s[lease_id] = self._clock.monotonic_s() + self._ttl_s
        return lease

    async def release(self, lease_id: str) -> None:
        """End the lease, if it has not ended."""
        if lease_id in self._leases:
            self._drop(lease_id)
            await self._save()

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        """All endpoints with a lease, then after each change. For one reader, beside run."""
        last: frozenset[Endpoint] | None = None
        while True:
            self._changed.clear()
            endpoints = frozenset(Endpoint(each.address, NAME) for each in self._leases.values())
            if endpoints != last:
                last = endpoints
                yield endpoints
            else:
                await self._changed.wait()

    async def run(self) -> None:
        """End leases when they run out, until cancelled."""
        while True:
            now_s = self._clock.monotonic_s()
            # A lease given meanwhile lasts a whole ttl_s, so it cannot end before this wakes.
            first_s = min(self._end_s.values(), default=now_s + self._ttl_s)
            await self._clock.sleep(max(first_s - now_s, 0.0))
            self._expire()

    def _expire(self) -> None:
        now_s = self._clock.monotonic_s()
        for lease_id in [each for each, end_s in self._end_s.items() if end_s <= now_s]:
            log.info("lease ran out", extra={"address": self._leases[lease_id].address})
            self._drop(lease_id)

    def _drop(self, lease_id: str) -> None:
        del self._leases[lease_id], self._end_s[lease_id]
        self._changed.set()

    async def _save(self) -> None:
        """Keep the leases as they are now, one write at a time."""
        async with self._saving:
            content = json.dumps({each.id: each.address for each in self._leases.values()}).encode()
            try:
                await asyncio.to_thread(write_atomically, self._path, content)
            except OSError:
                # The lease holds all the same; only a restart would not know of it.
                log.exception("leases could not be kept", extra={"path": str(self._path)})


def _load(path: Path) -> dict[str, str]:
    try:
        return KEPT.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as err:
        log.warning("kept leases were unusable", extra={"path": str(path), "reason": type(err).__name__})
        return {}
