"""`llmesh contract check`: what admission would say of a tool, before it is on any mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gateway.catalog import CatalogBoard, Endpoint, State, Step
from gateway.clock import SystemClock
from gateway.discovery.admit import Sighting, admit
from gateway.discovery.discovery import Discovery
from gateway.reading.candidate import read_candidate
from gateway.reading.descriptors import link
from gateway.reading.reflect import Limits
from gateway.reading.refusal import Refusal
from governance.ownership import Ownership, parse_ownership
from llmesh.cli.output import console, print_json
from llmesh.cli.protoc import compile_protos
from llmesh.document import DocumentError
from llmesh.problem import Problem

# How long a first look may take in all.
LOOK_S = 20.0

contract = typer.Typer(no_args_is_help=True)


@contract.command()
def check(
    target: Annotated[
        str, typer.Argument(help="Where a tool listens (host:port, unix:/path), or a folder of .proto files.")
    ],
    *,
    ownership: Annotated[Path, typer.Option(help="Who owns which packages.")] = Path(
        "governance/policies/ownership.yaml"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout, and nothing else.")] = False,
) -> None:
    """Say what the mesh would say of a contract: each step of admission, passed or failed.

    Exit code 0: every service would be admitted. 1: one would not.
    """
    owners = _read_ownership(ownership)
    steps = (
        _check_folder(Path(target), owners) if Path(target).is_dir() else asyncio.run(_check_address(target, owners))
    )
    if as_json:
        print_json(
            [
                {"step": s.name, "service": s.service, "passed": s.passed, "reason": s.reason, "message": s.message}
                for s in steps
            ]
        )
    else:
        _print(steps)
    if not all(step.passed for step in steps):
        raise typer.Exit(1)


def _read_ownership(path: Path) -> Ownership:
    try:
        return parse_ownership(path.read_text(encoding="utf-8"), file=str(path))
    except FileNotFoundError as error:
        raise Problem(
            f"`{path}` is missing", "name the file that says who owns which packages: --ownership FILE"
        ) from error
    except DocumentError as error:
        raise Problem(str(error)) from error


def _print(steps: Sequence[Step]) -> None:
    out = console()
    for step in steps:
        mark = "[green]ok[/]  " if step.passed else "[red]FAIL[/]"
        out.print(f"{mark} {step.name:9} {step.service}")
        if not step.passed:
            out.print(f"     {step.reason}: {step.message}", markup=False)
        elif step.message:
            out.print(f"     note: {step.message}", markup=False)


@dataclass(frozen=True, slots=True)
class _One:
    """A source that names one endpoint, for ever."""

    endpoint: Endpoint

    async def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        yield frozenset([self.endpoint])
        await asyncio.Event().wait()


async def _check_address(address: str, owners: Ownership) -> Sequence[Step]:
    endpoint = Endpoint(address, "check")
    board = CatalogBoard()
    discovery = Discovery(
        board, [_One(endpoint)], ownership=lambda: owners, limits=Limits(), store=None, clock=SystemClock()
    )
    running = asyncio.create_task(discovery.run())
    try:
        async with asyncio.timeout(LOOK_S):
            async for catalog in board.watch():
                report = catalog.reports.get(address)
                if report is not None and report.state is not State.PENDING:
                    return report.steps
    except TimeoutError as error:
        raise Problem(
            f"`{address}` said nothing for {LOOK_S:g} s", "see that the tool runs and listens there"
        ) from error
    finally:
        running.cancel()
    raise AssertionError("a board is watched until it is left")


def _check_folder(folder: Path, owners: Ownership) -> Sequence[Step]:
    files = compile_protos(folder)
    own = {file.name: file for file in files if (folder / file.name).exists()}
    services = [f"{file.package}.{service.name}" for file in own.values() for service in file.service]
    if not services:
        raise Problem(
            f"no service is defined in the .proto files under `{folder}`",
            "name the folder that protoc is given with -I",
        )
    steps: list[Step] = []
    for service in services:
        try:
            linked = link(service, files)
            candidate = read_candidate(service, linked.contract, grant=None, pool=linked.pool)
        except Refusal as refusal:
            steps.append(refusal.step("link", service))
            continue
        sighting = Sighting(Endpoint(str(folder), "check"), 0, (candidate,))
        admission = admit([sighting], ownership=owners, incumbents={})
        steps += [Step("link", passed=True, service=service), *admission.steps[str(folder), service]]
    return steps
