"""The gateway's sockets, so that one gateway can take the place of another between two connections.

Each gateway listens at paths of its own; the paths that everybody knows are
links to those of the one that does the work. Connections that stand stay with
the gateway they were made to until that ends.
"""

from __future__ import annotations

import os
import socket
from contextlib import aclosing
from pathlib import Path

from gateway.catalog import CatalogBoard
from llmesh.home import Home, HomeError

__all__ = ["Doors", "check_alone"]


class Doors:
    """The known paths of one mesh's gateway."""

    def __init__(self, home: Home) -> None:
        """Nothing leads here yet."""
        self._home = home
        self._paths = (home.registry_socket, home.xds_socket, home.services_socket)

    async def open(self, shown: CatalogBoard, *, succeeds: bool) -> None:
        """Let the known paths lead here, the services' once the first catalog is shown: nobody is told of an empty one.

        succeeds: another gateway does the work until then. All own paths must be listened at.
        """
        *early, services = self._paths
        if not succeeds:
            self._forget_dead()
            self._link(*early)
        async with aclosing(shown.watch()) as catalogs:
            async for catalog in catalogs:
                if catalog.version:
                    break
        self._link(*(early if succeeds else ()), services)

    def close(self) -> None:
        """Remove the known paths that still lead here."""
        for path in self._paths:
            if path.is_symlink() and path.readlink().name == self._home.own(path).name:
                path.unlink(missing_ok=True)

    def _link(self, *paths: Path) -> None:
        for path in paths:
            draft = path.with_suffix(f".{os.getpid()}")
            draft.unlink(missing_ok=True)
            draft.symlink_to(self._home.own(path).name)
            draft.replace(path)

    def _forget_dead(self) -> None:
        """Remove what gateways that were killed left of theirs."""
        for path in self._paths:
            for left in path.parent.glob(f"{path.stem}-*.sock"):
                if left != self._home.own(path):
                    left.unlink(missing_ok=True)


def check_alone(home: Home) -> None:
    """Raises HomeError if another gateway serves this mesh directory."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(home.registry_socket))
        except OSError:
            return
    message = f"another gateway serves the mesh directory `{home.path}`: end it first, or name another directory"
    raise HomeError(message)
