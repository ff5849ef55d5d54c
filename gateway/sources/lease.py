"""Endpoints that tools take leases for: who stops renewing is gone.

Leases survive a restart of the gateway: each is then as good as new, so a
tool that lives renews it in time and one that died meanwhile runs out. The
wall clock has no part in it, nor has time in which the gateway itself stood
still: nobody could renew then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.catalog import Endpoint
from gateway.clock import Clock
from gateway.sources.hold import Hold
from llmesh.home import write_atomically

__all__ = ["Lease", "Leases"]

log = logging.getLogger(__name__)

TTL_S = 10.0
NAME = "lease"
# How often the clock is looked at; a longer silence means that the whole process stood still.
TICK_S = 1.0
# A disk that is slower than this keeps nobody from a lease.
SAVE_WAIT_S = 0.5
# What a disk did not take is tried again after so long.
RETRY_S = 1.0
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
        self._seen_s = clock.monotonic_s()
        self._end_s = dict.fromkeys(self._leases, self._seen_s + ttl_s)
        self._hold = Hold(waits=True)
        self._hold.see(self._addresses, now_s=self._seen_s)
        self._changed = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._saved = asyncio.Event()
        # Why they are not on disk as they are; empty if they are.
        self.unkept = ""

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._leases)

    async def register(self, address: str) -> Lease:
        """A new lease, kept on disk if that can be soon; an address that has one already gets this one in its place."""
        lease = Lease(secrets.token_hex(ID_BYTES), address, self._ttl_s)
        for each in [each for each in self._leases.values() if each.address == address]:
            self._drop(each.id)
        self._leases[lease.id] = lease
        self._end_s[lease.id] = self._now_s() + self._ttl_s
        self._tell()
        await self._save()
        return lease

    async def renew(self, lease_id: str) -> Lease | None:
        """The lease, for another ttl_s from now; None if it has ended."""
        self._expire()
        lease = self._leases.get(lease_id)
        if lease is not None:
            self._end_s[lease_id] = self._now_s() + self._ttl_s
        return lease

    async def release(self, lease_id: str) -> str | None:
        """End the lease; its address, None if it had ended."""
        if lease_id not in self._leases:
            return None
        address = self._drop(lease_id)
        self._tell(released=frozenset({address}))
        await self._save()
        return address

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        """All endpoints that have a lease, or are kept, then after each change. For one reader, beside run."""
        last: dict[str, bool] | None = None
        while True:
            self._changed.clear()
            held = self._hold.held
            named = {address: address in held for address in self._addresses | self._hold.kept}
            if named != last:
                last = named
                yield frozenset(Endpoint(address, NAME, held=is_held) for address, is_held in named.items())
            else:
                await self._changed.wait()

    async def run(self) -> None:
        """End leases when they run out, and keep the others on disk, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep())
            while True:
                now_s = self._now_s()
                ends = [*self._end_s.values(), self._hold.next_s() or now_s + self._ttl_s]
                await self._clock.sleep(min(max(min(ends) - now_s, 0.0), TICK_S))
                self._expire()

    @property
    def _addresses(self) -> frozenset[str]:
        return frozenset(each.address for each in self._leases.values())

    def _now_s(self) -> float:
        """The time, by which leases end; one in which we stood still is added to each."""
        now_s = self._clock.monotonic_s()
        still_s = now_s - self._seen_s - TICK_S
        if still_s > TICK_S:
            log.warning("the gateway stood still", extra={"span_s": round(still_s, 1)})
            self._end_s = {lease_id: end_s + still_s for lease_id, end_s in self._end_s.items()}
        self._seen_s = now_s
        return now_s

    def _expire(self) -> None:
        now_s = self._now_s()
        over = [each for each, end_s in self._end_s.items() if end_s <= now_s]
        for lease_id in over:
            log.info("lease ran out", extra={"address": self._drop(lease_id)})
        if over or (self._hold.next_s() or now_s + 1) <= now_s:
            self._tell()

    def _drop(self, lease_id: str) -> str:
        """Forget the lease; its address."""
        del self._end_s[lease_id]
        return self._leases.pop(lease_id).address

    def _tell(self, *, released: frozenset[str] = frozenset()) -> None:
        """Let the reader see what is named now."""
        if self._hold.see(self._addresses, now_s=self._seen_s, released=released):
            log.warning("mass disappearance of endpoints held", extra={"addresses": sorted(self._hold.held)})
        self._changed.set()

    async def _save(self) -> None:
        """Return when the leases as they are now are on disk, or that takes too long."""
        self._unsaved.set()
        self._saved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(SAVE_WAIT_S):
                await self._saved.wait()

    async def _keep(self) -> None:
        """Keep the leases on disk, the newest where the disk is slower."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            content = json.dumps({each.id: each.address for each in self._leases.values()}).encode()
            saving = asyncio.ensure_future(asyncio.to_thread(write_atomically, self._path, content))
            try:
                await asyncio.shield(saving)
            except asyncio.CancelledError:
                # A thread cannot be stopped: nothing of ours may write after run has returned.
                await asyncio.wait([saving])
                raise
            except OSError as err:
                # The lease holds all the same; only a restart would not know of it.
                if not self.unkept:
                    log.exception("leases could not be kept", extra={"path": str(self._path)})
                self.unkept = str(err)
                self._saved.set()
                await self._clock.sleep(RETRY_S)
                self._unsaved.set()
                continue
            self.unkept = ""
            if not self._unsaved.is_set():
                self._saved.set()


def _load(path: Path) -> dict[str, str]:
    try:
        return KEPT.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as err:
        log.warning("kept leases were unusable", extra={"path": str(path), "reason": type(err).__name__})
        return {}
