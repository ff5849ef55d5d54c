"""Serve documentation search: `python -m doc_search`."""

import sys

import llmesh
from llmesh.home import Home, HomeError
from llmesh.log import configure_logging
from llmesh.retrieval import Meanings, Passages

from .cache import load_or_build
from .service import DocSearch


def main() -> None:
    """Load the index, which the first start builds, and serve it until stopped."""
    configure_logging()
    try:
        home = Home.join()
    except HomeError as err:
        sys.exit(f"doc_search: {err}")
    index, own_mesh = load_or_build(home.cache), llmesh.OwnMesh()

    async def passages() -> Passages:
        return index.meant

    meanings = Meanings(home.cache / "doc-search-meanings", own_mesh, passages)
    llmesh.serve(DocSearch(index, meanings), home=home, own_mesh=own_mesh, beside=meanings)


if __name__ == "__main__":
    main()
