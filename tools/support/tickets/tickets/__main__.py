"""Serve the tool from the mesh directory's state: python -m tickets."""

import os
import sys

import llmesh
from llmesh.home import Home
from tickets.service import TicketsService
from tickets.store import Store


def main() -> None:
    """Open the store, serve until told to stop, close the store."""
    home = Home.find()
    if not home.exists and "LLMESH_HOME" not in os.environ:
        sys.exit(f"tickets: no mesh directory at `{home.path}`: run `llmesh up`, or set LLMESH_HOME")
    store = Store(home.create().state / "tickets.db")
    try:
        llmesh.serve(TicketsService(store))
    finally:
        store.close()


if __name__ == "__main__":
    main()
