"""Where failures become sentences: nothing a command raises reaches the terminal as a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmesh.cli.output import print_failure, print_problem
from llmesh.problem import Problem

if TYPE_CHECKING:
    from llmesh.errors import MeshError, Violation

DEBUG = "LLMESH_DEBUG"
# Read from the arguments themselves: a command may fail before its options are known.
JSON = "--json"

# How gRPC itself begins when there is no connection.
UNREACHABLE = "failed to connect to all addresses"
# What gRPC says of a certificate that it does not believe, before the reason, and of one of another host.
NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED: "
OTHER_HOST = "Hostname Verification"

# Reasons of calls that tools may not make for their callers: no caller can do anything about them.
BETWEEN_TOOLS = frozenset({"NOT_DELEGATED", "DELEGATION_LOOP", "TOO_MANY_HOPS"})

# What to do next, by the code of a failed call.
STEPS = {
    "UNAUTHENTICATED": "sign in again: llmesh login --as NAME --role ROLE",
    "PERMISSION_DENIED": "see who you are: llmesh login; be somebody else: --as NAME",
    "BETWEEN_TOOLS": "tell the owner of the tool that made the call: llmesh tools show TOOL says who that is",
    "BLOCKED": "see who stopped it, and until when: llmesh blocks",
    "NOT_BELIEVED": "name the file of the authority that vouches for it: LLMESH_AUTHORITY=FILE",
    "MODEL_NOT_READY": "see whether it is: llmesh call llmesh.api.model.v1.ModelService/ListModels '{}'",
    "UNREACHABLE": "start a mesh here (llmesh up), or say where it is (--address; https:// where it speaks TLS)",
    "UNAVAILABLE": "see what runs: llmesh status",
    "NO_TOOL": "see what there is: llmesh tools list",
    "UNIMPLEMENTED": "see what there is: llmesh tools list",
    "DEADLINE_EXCEEDED": "give it more time: --timeout SECONDS",
}


@contextmanager
def told() -> Generator[None]:
    """Turn whatever goes wrong inside into a sentence on stderr and exit code 1; for programs, into JSON there.

    With LLMESH_DEBUG set, it is raised as it is.
    """
    try:
        yield
    except Exception as err:  # the one edge of the command line
        if os.environ.get(DEBUG):
            raise
        if JSON in sys.argv[1:]:
            print_failure(failure_of(err))
        else:
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


def failure_of(err: Exception) -> dict[str, object]:
    """What a failure means to a program. Every key is always there; code, reason and the like are those of a call."""
    from llmesh.errors import MeshError

    call = err if isinstance(err, MeshError) else None
    problem = problem_of(err)
    return {
        "code": call.code.name if call else "",
        "reason": call.reason if call else "",
        "message": call.message if call else problem.message,
        "rule": call.metadata.get("rule", "") if call else "",
        "violations": [asdict(found) for found in violations_of(call)],
        "call_id": call.call_id if call else "",
        "retry_after_s": retry_after_s(call),
        "next": _step(call) if call else problem.step,
    }


def violations_of(error: MeshError | None) -> Sequence[Violation]:
    """The fields that broke their contract."""
    return getattr(error, "violations", ())


def retry_after_s(error: MeshError | None) -> float | None:
    """How long to wait before the call is made again; None if nothing was said of it."""
    return getattr(error, "retry_after_s", None)


def _of_call(error: MeshError) -> Problem:
    """A failed call: message, code, reason, rule, call's id and the fields that the message doesn't name."""
    if NOT_VERIFIED in error.message:
        why = error.message.partition(NOT_VERIFIED)[2].removesuffix(": OK")
        return Problem(f"the mesh's certificate is not believed: {why}", _step(error))
    if OTHER_HOST in error.message:
        return Problem(
            "the mesh's certificate does not name the host of the address",
            "say where the mesh is by a name that its certificate has (--address), or have it issued for this one",
        )
    if error.message.startswith(UNREACHABLE):
        return Problem(f"nobody answers at the mesh's address: {error.message.rpartition(': ')[2]}", _step(error))
    facts = [error.code.name]
    if error.reason not in ("", error.code.name):
        facts.append(error.reason)
    if rule := error.metadata.get("rule"):
        facts.append(f"rule {rule}")
    if error.call_id:
        facts.append(f"call {error.call_id}")
    if delay_s := retry_after_s(error):
        facts.append(f"try again in {delay_s:g} s")
    fields = [
        f"{found.field}: {found.description}"
        for found in violations_of(error)
        if not (found.field in error.message and found.description in error.message)
    ]
    lines = [*fields, _step(error)]
    return Problem(f"{error.message or 'no message'} ({', '.join(facts)})", "\n  ".join(line for line in lines if line))


def _step(error: MeshError) -> str:
    if NOT_VERIFIED in error.message or OTHER_HOST in error.message:
        return STEPS["NOT_BELIEVED"]
    if error.message.startswith(UNREACHABLE):
        return STEPS["UNREACHABLE"]
    if error.reason in STEPS:
        return STEPS[error.reason]
    if error.reason in BETWEEN_TOOLS:
        return STEPS["BETWEEN_TOOLS"]
    # What a tool doesn't find is its own; the list of tools helps only with a tool that isn't there.
    kind, _ = getattr(error, "resource", None) or ("", "")
    return STEPS["NO_TOOL"] if kind == "tool" else STEPS.get(error.code.name, "")
