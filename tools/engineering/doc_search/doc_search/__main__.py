"""Serve documentation search: `python -m doc_search`."""

import sys

import llmesh
from llmesh.home import Home, HomeError
from llmesh.log import configure_logging

from .cache import load_or_build
from .service import DocSearch


def main() -> None:
    """Load the index, which the first start builds, and serve it until stopped."""
    configure_logging()
    try:
        home = Home.join()
    except HomeError as err:
        sys.exit(f"doc_search: {err}")
    llmesh.serve(DocSearch(load_or_build(home.cache)), home=home)


if __name__ == "__main__":
    main()
