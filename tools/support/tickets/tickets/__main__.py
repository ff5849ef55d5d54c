"""Serve the tool from the mesh directory's state: python -m tickets."""

import sqlite3
import sys

import llmesh
from llmesh.home import Home, HomeError
from tickets.service import TicketsService
from tickets.store import Store


def main() -> None:
    """Open the store, serve until told to stop, close the store."""
    try:
        home = Home.join()
    except HomeError as err:
        sys.exit(f"tickets: {err}")
    path = home.state / "tickets.db"
    try:
        store = Store(path)
    except (sqlite3.DatabaseError, OSError) as err:
        sys.exit(f"tickets: the ticket store `{path}` cannot be opened: {err}; put a copy back, or move it away")
    try:
        llmesh.serve(TicketsService(store), home=home)
    finally:
        store.close()


if __name__ == "__main__":
    main()
