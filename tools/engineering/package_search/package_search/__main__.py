"""Serve package search: `python -m package_search [--status FILE]`."""

import argparse
import logging
import sys
from pathlib import Path

import llmesh
from llmesh.home import Home, HomeError
from llmesh.log import configure_logging
from llmesh.retrieval import Meanings, Passages

from .installed import STATUS, Installed
from .service import PackageSearch

log = logging.getLogger(__name__)


def main() -> None:
    """Serve the packages of a status file until stopped."""
    parser = argparse.ArgumentParser(prog="package_search", description="Search the installed Debian packages.")
    parser.add_argument("--status", type=Path, default=STATUS, help=f"dpkg's status file; {STATUS}")
    status: Path = parser.parse_args().status
    configure_logging()
    if not status.exists():
        # The mesh starts all the same, and whoever asks is told: a process that ended here would be waited for.
        told = {
            "file": str(status),
            "next": "run it on Debian or a system made from it, or leave it out of the mesh file",
        }
        log.warning("no dpkg here: every call is UNAVAILABLE", extra=told)
    try:
        home = Home.join()
    except HomeError as err:
        sys.exit(f"package_search: {err}")
    installed, own_mesh = Installed(status), llmesh.OwnMesh()

    async def passages() -> Passages:
        return (await installed.index()).meant

    meanings = Meanings(home.cache / "package-search-meanings", own_mesh, passages)
    llmesh.serve(PackageSearch(installed, meanings), home=home, own_mesh=own_mesh, beside=meanings)


if __name__ == "__main__":
    main()
