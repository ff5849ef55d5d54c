"""What must hold before anything is started, each failure with what to do about it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from llmesh.home import Home, HomeError
from llmesh.problem import Problem
from llmesh.supervisor.processes import port_holder, port_is_free

# What `llmesh up` runs, by the module that shows it is installed.
NEEDED = ("grpc", "cel_expr_python", "envoy", "gateway", "governance", "prometheus_client")
STAMP = ".installed"


def open_home(path: Path | None) -> Home:
    """The mesh directory, made if it isn't there. Raises Problem if it cannot be used."""
    try:
        home = Home.find(path).create()
    except HomeError as err:
        raise Problem(str(err), "name another one: --home DIRECTORY") from err
    except OSError as err:
        raise Problem(
            f"the mesh directory cannot be made: {err.strerror}: `{err.filename}`", "name another one: --home DIRECTORY"
        ) from err
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise Problem(f"the mesh directory `{home.path}` cannot be written", "name another one: --home DIRECTORY")
    return home


def check_installed() -> None:
    """Raises Problem if what runs the mesh isn't installed, or only in part."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return
    what = f"what runs the mesh is not installed: {', '.join(missing)}"
    environment = Path(sys.prefix)
    if (environment.parent / "Makefile").exists() and not (environment / STAMP).exists():
        raise Problem(f"{what}; `{environment}` is only half made", "make it again: make setup")
    raise Problem(what, "install it: pip install 'll-mesh[gateway]'")


def check_port(host: str, port: int) -> None:
    """Raises Problem if somebody else listens there."""
    if port_is_free(host, port):
        return
    holder = port_holder(port)
    by = f" by {holder}" if holder else ""
    raise Problem(f"port {port} on {host} is taken{by}", "end that, or set another address in the mesh file")
