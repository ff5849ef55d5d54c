"""Serve package search: `python -m package_search [--status FILE]`."""

import argparse
from pathlib import Path

import llmesh

from .installed import STATUS, Installed
from .service import PackageSearch


def main() -> None:
    """Serve the packages of a status file until stopped."""
    parser = argparse.ArgumentParser(prog="package_search", description="Search the installed Debian packages.")
    parser.add_argument("--status", type=Path, default=STATUS, help=f"dpkg's status file; {STATUS}")
    status: Path = parser.parse_args().status
    if not status.is_file():
        parser.error(
            f"there is no `{status}`, where dpkg lists what is installed: this tool needs Debian or a system made "
            "from it; elsewhere take it out of the mesh file"
        )
    llmesh.serve(PackageSearch(Installed(status)))


if __name__ == "__main__":
    main()
