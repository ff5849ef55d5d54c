"""`llmesh tools`: what is on the mesh, and why something isn't."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import console, print_json
from llmesh.problem import Problem

if TYPE_CHECKING:
    import grpc.aio

    from llmesh.api.catalog.v1 import catalog_pb2 as pb

# The domain of the mesh's own tools, which are on every mesh.
PLATFORM = "platform"

app = typer.Typer(help="See what is on the mesh, and why something isn't.", no_args_is_help=True)


@app.command("list")
def list_tools(
    *,
    domain: Annotated[str, typer.Option("--domain", help="Only tools of this domain.")] = "",
    every: Annotated[bool, typer.Option("--all", help="The platform's own tools too.")] = False,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """List the tools that you may see."""
    from llmesh import catalog
    from llmesh.cli import show
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    listed = session.run(lambda channel: catalog.list_tools(channel, domain=domain))
    found = [tool for tool in listed if every or domain or tool.domain != PLATFORM]
    if json:
        print_json({"tools": [catalog.as_json(tool) for tool in found]})
    else:
        of = f"no tool of the domain `{domain}`" if domain else "nothing"
        console().print(show.tools_table(found) if found else escape(f"{of} that you may see is on the mesh"))


@app.command("show")
def show_tool(
    service: Annotated[str, typer.Argument(help="The tool, e.g. acme.support.v1.Tickets.")],
    *,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Describe one tool: its product sheet, its methods, how to call them."""
    from llmesh import catalog
    from llmesh.cli import show
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    if json:
        print_json(catalog.as_json(session.run(lambda channel: catalog.get_tool(channel, service=service))))
    else:
        tool, forms = session.run(lambda channel: _with_forms(channel, service))
        show.print_tool(console(), tool, forms)


@app.command("prompts")
def prompts(
    service: Annotated[str, typer.Argument(help="A tool of your domain, e.g. acme.support.v1.Triage.")],
    *,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Show the prompts that a tool of your domain answers by."""
    from llmesh import catalog
    from llmesh.cli import show
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    found = session.run(lambda channel: catalog.list_prompts(channel, service=service))
    if json:
        print_json({"prompts": [catalog.as_json(one) for one in found]})
    elif not found:
        console().print(f"`{service}` answers by no prompt", markup=False)
    for one in [] if json else found:
        show.print_prompt(console(), one)


@app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="What you need, in words.")],
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most this many.")] = 10,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Find tools by what you need: by its words and, where the mesh has a model server, by what it means."""
    from llmesh import catalog
    from llmesh.cli import show
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    query = " ".join(words)
    found = session.run(lambda channel: catalog.search(channel, query=query, limit=limit))
    if json:
        print_json(catalog.as_json(found))
    else:
        show.print_found(console(), found, query)


@app.command("why")
def why(
    endpoint: Annotated[
        str,
        typer.Argument(
            help="A tool or package (acme.support.v1), the name of a process, or an address or a part of one. "
            "Without it: all.",
            metavar="TOOL|ADDRESS",
        ),
    ] = "",
    *,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Say what became of a tool's endpoints: each step of their admission, and what to do about the failed one."""
    from llmesh import catalog
    from llmesh.cli import show
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    known = session.run(catalog.list_endpoints)
    found = [one for one in known if _is_meant(one, endpoint)]
    if json:
        print_json({"endpoints": [catalog.as_json(one) for one in found]})
    elif not found:
        raise Problem(
            f"the mesh knows no tool or endpoint `{endpoint}` that you may ask about"
            if endpoint
            else "you may ask about no endpoint",
            "you see those of your domain; the role `platform` sees all, those too whose package no domain owns: "
            "llmesh login --as ops --role platform",
        )
    for one in [] if json else found:
        show.print_endpoint(console(), one)


@app.command("may")
def may(
    method: Annotated[str, typer.Argument(help="The method, e.g. acme.support.v1.Tickets/GetTicket.")],
    *,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Say whether the rules would permit you a call, without making it.

    Exit code 0: they would, or it hangs on how the call comes. 1: they would not.
    """
    from llmesh import catalog
    from llmesh.api.catalog.v1 import catalog_pb2 as pb
    from llmesh.cli.session import open_session
    from llmesh.dynamic import UnknownMethod, split_method

    try:
        service, called = split_method(method)
    except UnknownMethod as err:
        raise Problem(str(err)) from err
    session = open_session(home, address, name=name)
    told = session.run(lambda channel: catalog.may_call(channel, service=service, method=called))
    if json:
        print_json(catalog.as_json(told))
    else:
        outcome = pb.MayICallResponse.Outcome.Name(told.outcome).removeprefix("OUTCOME_").lower()
        rule = f" ({told.rule})" if told.rule else ""
        console().print(f"{outcome}: {told.reason}{rule}", markup=False)
    if told.outcome == pb.MayICallResponse.OUTCOME_DENIED:
        raise typer.Exit(1)


async def _with_forms(channel: grpc.aio.Channel, service: str) -> tuple[pb.Tool, Mapping[str, str]]:
    """A tool; and of its methods that have no example, requests to be filled in, by their names."""
    from llmesh import catalog
    from llmesh.dynamic import UnknownMethod
    from llmesh.errors import MeshError

    tool = await catalog.get_tool(channel, service=service)
    bare = [method.name for method in tool.methods if not method.examples]
    if not bare:
        return tool, {}
    try:
        contract = await catalog.get_contract(channel, service=service)
        return tool, {name: json_text.dumps(contract.method(service, name).form()) for name in bare}
    except (MeshError, UnknownMethod):
        # The sheet is what was asked for.
        return tool, {}


def _is_meant(endpoint: pb.Endpoint, wanted: str) -> bool:
    """Whether an endpoint is one of those asked for: by address, by process or by a service, admitted or not."""
    if not wanted or wanted in endpoint.address or endpoint.address == f"unix:{Path(wanted).absolute()}":
        return True
    services = {*endpoint.services, *(step.service for step in endpoint.steps)}
    return any(_is_named(service, wanted) for service in services)


def _is_named(service: str, wanted: str) -> bool:
    """Whether a service goes by a name: in full, by a prefix of whole labels, or by its last label in any case."""
    prefix = wanted.rstrip(".")
    return service == prefix or service.startswith(f"{prefix}.") or service.rpartition(".")[2].lower() == wanted.lower()
