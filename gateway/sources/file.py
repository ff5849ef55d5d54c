"""Endpoints that the mesh file names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.catalog import Endpoint, Grant
from gateway.clock import Clock
from llmesh.document import DocumentError
from llmesh.mesh_file import EndpointEntry, read_mesh_file

__all__ = ["FileSource"]

log = logging.getLogger(__name__)

POLL_S = 0.5
NAME = "file"


class FileSource:
    """Reads the mesh file's endpoints, and again whenever the file changes.

    A file that cannot be read or is wrong changes nothing: the last good
    endpoints stay, and problem says what is wrong.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """The file is looked at every half second of the clock."""
        self.problem: str | None = None
        self._path = path
        self._clock = clock

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        """The endpoints once the file is good, then after each change that alters them."""
        last: frozenset[Endpoint] | None = None
        # Not None: a file that is not there is a problem to tell, too.
        read: object = ()
        while True:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp != read:
                read = stamp
                endpoints = await self._read()
                if endpoints is not None and endpoints != last:
                    last = endpoints
                    yield endpoints
            await self._clock.sleep(POLL_S)

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
