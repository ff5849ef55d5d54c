"""Serve documentation search: `python -m doc_search`."""

import os
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
        home = Home.find()
        if not home.exists and not os.environ.get("LLMESH_HOME"):
            sys.exit(f"doc_search: no mesh directory at `{home.path}`: run `llmesh up`, or set LLMESH_HOME")
        cache = home.create().cache
    except HomeError as err:
        sys.exit(f"doc_search: {err}")
    llmesh.serve(DocSearch(load_or_build(cache)), home=home)


if __name__ == "__main__":
    main()
