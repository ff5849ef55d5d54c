"""Serve handbook search: `python -m search [--root FOLDER]`."""

import argparse
import sys
from pathlib import Path

import llmesh
from llmesh.home import Home, HomeError
from llmesh.retrieval import Meanings, Passages

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
    try:
        home = Home.join()
    except HomeError as err:
        sys.exit(f"search: {err}")
    handbook, own_mesh = Handbook(root), llmesh.OwnMesh()

    async def passages() -> Passages:
        return (await handbook.index()).meant

    meanings = Meanings(home.cache / "handbook-search-meanings", own_mesh, passages)
    llmesh.serve(HandbookSearch(handbook, meanings), home=home, own_mesh=own_mesh, beside=meanings)


if __name__ == "__main__":
    main()
