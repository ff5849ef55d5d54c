"""`llmesh contract`: a tool's types, for those who call it."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import print_json, say
from llmesh.problem import Problem

if TYPE_CHECKING:
    import grpc.aio

    from llmesh.dynamic import Contract

app = typer.Typer(help="Get a tool's contract, and check your own.", no_args_is_help=True)

# What every compiler of .proto files brings along.
BUILT_IN = "google/protobuf/"


@app.callback()
def contract() -> None:
    """Get a tool's contract, and check your own."""


@app.command("pull")
def pull(
    package: Annotated[str, typer.Argument(help="A package (acme.support.v1) or one tool (acme.support.v1.Tickets).")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")] = Path("protos"),
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Write a package's .proto files, with all they import, ready to be compiled to stubs.

    Comments don't survive compilation, so there are none. Files that are there are replaced.
    """
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    contracts = session.run(lambda channel: _contracts(channel, package))
    written = _write(_sources(contracts), out)
    if json:
        print_json({"files": written})
        return
    for file in written:
        say(file)


@app.command("includes")
def includes() -> None:
    """Print the options that let a compiler find the platform's own .proto files.

    As in: protoc $(llmesh contract includes) -I protos --python_out=. protos/acme/hello/v1/hello.proto
    """
    from rich.markup import escape

    from llmesh.protos import proto_folders

    say(escape(" ".join(f"-I{folder}" for folder in proto_folders())))


async def _contracts(channel: grpc.aio.Channel, package: str) -> list[Contract]:
    """The contracts of the package's tools. Raises Problem if it has none that the caller may see."""
    from llmesh import catalog

    services = [tool.service for tool in await catalog.list_tools(channel)]
    wanted = [service for service in services if service == package or service.rpartition(".")[0] == package]
    if not wanted:
        packages = ", ".join(sorted({service.rpartition(".")[0] for service in services})) or "none"
        raise Problem(f"nothing that you may see is in the package `{package}`", f"packages on the mesh: {packages}")
    return list(await asyncio.gather(*(catalog.get_contract(channel, service=service) for service in wanted)))


def _sources(contracts: list[Contract]) -> dict[str, str]:
    """The source of every file of the contracts, by its name."""
    from llmesh.proto_source import SourceError, render

    found: dict[str, str] = {}
    for one in contracts:
        try:
            sources = render(one.files, one.pool)
        except SourceError as err:
            raise Problem(f"the contract cannot be written as source: {err}") from err
        for name, text in sources.items():
            if found.setdefault(name, text) != text:
                raise Problem(f"two tools disagree on `{name}`", "pull each by its own name, into a folder of its own")
    return found


def _write(sources: dict[str, str], folder: Path) -> list[str]:
    """Write the files that a compiler doesn't bring along; the paths written."""
    written: list[str] = []
    for name, text in sources.items():
        if name.startswith(BUILT_IN):
            continue
        path = folder / _safe(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(str(path))
    return sorted(written)


def _safe(name: str) -> PurePosixPath:
    """A file's name as a path below a folder. It is a tool's word, so it may lead anywhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".proto" or "\\" in name or not name.isprintable():
        raise Problem(f"a contract names its file `{name}`: that is not written", "tell the tool's owner")
    return path
