"""Where failures become sentences: nothing a command raises reaches the terminal as a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmesh.cli.output import print_problem
from llmesh.problem import Problem

if TYPE_CHECKING:
    from llmesh.errors import MeshError

DEBUG = "LLMESH_DEBUG"

# How gRPC itself begins when there is no connection.
UNREACHABLE = "failed to connect to all addresses"

# What to do next, by the code of a failed call.
STEPS = {
    "UNAUTHENTICATED": "sign in again: llmesh login --as NAME --role ROLE",
    "PERMISSION_DENIED": "see who you are: llmesh login; be somebody else: --as NAME",
    "UNREACHABLE": "start a mesh here (llmesh up), or say where it is (--address)",
    "UNAVAILABLE": "see what runs: llmesh status",
    "UNIMPLEMENTED": "see what there is: llmesh tools list",
    "DEADLINE_EXCEEDED": "give it more time: --timeout SECONDS",
}


@contextmanager
def told() -> Generator[None]:
    """Turn whatever goes wrong inside into a sentence on stderr and exit code 1.

    With LLMESH_DEBUG set, it is raised as it is.
    """
    try:
        yield
    except Exception as err:  # the one edge of the command line
        if os.environ.get(DEBUG):
            raise
        print_problem(problem_of(err))
        sys.exit(1)


def problem_of(err: Exception) -> Problem:
    """What a failure means to the person at the terminal."""
    if isinstance(err, Problem):
        return err
    from llmesh.home import HomeError

    if isinstance(err, HomeError):
        return Problem(str(err))
    from llmesh.errors import MeshError

    if isinstance(err, MeshError):
        return _of_call(err)
    if isinstance(err, OSError):
        return Problem(f"{err.strerror or err}" + (f": `{err.filename}`" if err.filename else ""))
    return Problem(
        f"unexpected: {type(err).__name__}: {err}", f"this is a fault of llmesh; {DEBUG}=1 shows where it happened"
    )


def _of_call(error: MeshError) -> Problem:
    """A failed call: message, code, reason, rule, fields and the call's id."""
    if error.message.startswith(UNREACHABLE):
        return Problem(
            f"nobody answers at the mesh's address: {error.message.rpartition(': ')[2]}", STEPS["UNREACHABLE"]
        )
    facts = [error.code.name]
    if error.reason not in ("", error.code.name):
        facts.append(error.reason)
    if rule := error.metadata.get("rule"):
        facts.append(f"rule {rule}")
    if error.call_id:
        facts.append(f"call {error.call_id}")
    fields = [f"{found.field}: {found.description}" for found in getattr(error, "violations", ())]
    lines = [*fields, STEPS.get(error.code.name, "")]
    return Problem(f"{error.message or 'no message'} ({', '.join(facts)})", "\n  ".join(line for line in lines if line))
