"""Serve handbook search: `python -m search [--root FOLDER]`."""

import argparse
from pathlib import Path

import llmesh

from .handbook import Handbook
from .service import HandbookSearch

# This file is <repository>/tools/handbook/search/search/__main__.py.
REPOSITORY = Path(__file__).resolve().parents[4]


def main() -> None:
    """Serve the pages under a folder until stopped."""
    parser = argparse.ArgumentParser(prog="search", description="Search a repository's Markdown pages.")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="folder of README.md and docs/; this repository")
    root: Path = parser.parse_args().root
    if not root.is_dir():
        parser.error(f"`{root}` is not a folder")
    llmesh.serve(HandbookSearch(Handbook(root)))


if __name__ == "__main__":
    main()
