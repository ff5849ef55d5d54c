"""The supervisor in the background: what `llmesh up --detach` leaves running."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from llmesh.problem import Problem
from llmesh.supervisor.start import start


def main() -> None:
    """Run the mesh of a mesh file until told to stop; its output goes to logs alone."""
    parser = argparse.ArgumentParser(prog="llmesh.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--mesh-file", type=Path, required=True)
    args = parser.parse_args()
    # No folder is to be kept from being unmounted by it.
    os.chdir("/")
    try:
        start(args.home, args.mesh_file, sink=lambda _name, _line: None)
    except Problem as problem:
        sys.exit(f"error: {problem.message}\n{problem.step}")


if __name__ == "__main__":
    main()
