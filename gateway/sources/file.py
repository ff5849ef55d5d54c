"""Endpoints that the mesh file names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

from gateway.catalog import Endpoint, Grant
from gateway.clock import Clock
from gateway.sources.hold import Hold
from llmesh.document import DocumentError
from llmesh.mesh_file import EndpointEntry, read_mesh_file

__all__ = ["FileSource"]

log = logging.getLogger(__name__)

POLL_S = 0.5
NAME = "file"


class FileSource:
    """Reads the mesh file's endpoints, and again whenever the file changes.

    A file that cannot be read or is wrong changes nothing: the last good
    endpoints stay, and problem says what is wrong. Of one that no longer names
    most of them, which may be half written, those are held.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """The file is looked at every half second of the clock."""
        self.problem: str | None = None
        self._path = path
        self._clock = clock
        self._hold = Hold(waits=False)
        # Address -> as the file named it last; None before it could be read.
        self._known: Mapping[str, Endpoint] | None = None

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        """The endpoints once the file is good, then after each change that alters them."""
        told: object = None
        # Not None: a file that is not there is a problem to tell, too.
        read: object = ()
        while True:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp != read:
                read = stamp
                self._take(await self._read())
            self._hold.pass_time(self._clock.monotonic_s())
            held = self._hold.held
            known = {each: at for each, at in (self._known or {}).items() if each in self._hold.named | held}
            if self._known is not None and (known, held) != told:
                self._known = known
                told = (known, held)
                yield frozenset(replace(each, held=each.address in held) for each in known.values())
            await self._clock.sleep(POLL_S)

    def _take(self, found: frozenset[Endpoint] | None) -> None:
        """Know what the file names now; None: it is wrong."""
        if found is None:
            return
        named = {each.address: each for each in found}
        self._known = {**(self._known or {}), **named}
        if self._hold.see(frozenset(named), now_s=self._clock.monotonic_s()):
            log.warning("mass disappearance of endpoints held", extra={"addresses": sorted(self._hold.held)})

    async def _read(self) -> frozenset[Endpoint] | None:
        try:
            mesh = await asyncio.to_thread(read_mesh_file, self._path)
        except DocumentError as err:
            self.problem = str(err)
            log.error("mesh file was not taken", extra={"problem": self.problem})  # noqa: TRY400 - the message says it all
            return None
        self.problem = None
        return frozenset(_endpoint(each) for each in mesh.endpoints)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _endpoint(entry: EndpointEntry) -> Endpoint:
    grants = (
        Grant(each.service, each.domain, each.owner_team, tuple(sorted(each.effects.items())))
        for each in entry.services
    )
    return Endpoint(entry.address, NAME, tuple(sorted(grants)), entry.tls_name)
