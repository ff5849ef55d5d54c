"""What a mesh that has just started shows of itself, with real calls: one that works, one refused, one search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import grpc
import grpc.aio
from rich.console import Console
from rich.text import Text

from llmesh import MeshError, catalog
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.cli import show
from llmesh.cli.edge import problem_of
from llmesh.cli.session import Session
from llmesh.dynamic import invoke

# What to show first, where the mesh has it.
PREFERRED_CALL = "acme.engineering.v1.DocSearch/Retrieve"
PREFERRED_REFUSAL = "acme.support.v1.Tickets/DeleteTicket"
SEARCH = "search the documentation"
# The mesh's own tools are on it too, and are no news.
PLATFORM = "platform"
RESPONSE_LINES = 12
CALL_TIMEOUT_S = 30.0


async def welcome(console: Console, session: Session, *, ends: str) -> None:
    """The address, what is on the mesh, and the three calls, each with the line that repeats it. ends: what ends it."""
    async with session.channel() as channel:
        tools = await catalog.list_tools(channel)
        console.print(f"\nthe mesh is up on [bold]{session.address}[/]\n")
        console.print(show.tools_table([tool for tool in tools if tool.domain != PLATFORM]))
        works = _choose(_examples(tools), PREFERRED_CALL)
        refused = _choose(_refusals(tools), PREFERRED_REFUSAL)
        if works:
            console.print("\n[bold]a call that works[/]")
            await _show_call(console, channel, works)
        if refused:
            console.print("\n[bold]one that is refused, and why[/]")
            await _show_call(console, channel, refused)
        await _show_search(console, channel)
    console.print(f"\n[dim]{ends} ends it; `llmesh status` shows how it is[/]\n")


def _examples(tools: Sequence[pb.Tool]) -> Iterator[tuple[str, str]]:
    """Methods to read with that the caller may call, with the request of an example."""
    for tool in tools:
        for method in tool.methods:
            if method.effect == options.EFFECT_READ and not method.denied and method.examples:
                yield f"{tool.service}/{method.name}", method.examples[0].request_json


def _refusals(tools: Sequence[pb.Tool]) -> Iterator[tuple[str, str]]:
    """Methods that no rule permits the caller, with a request."""
    for tool in tools:
        for method in tool.methods:
            if method.denied:
                yield f"{tool.service}/{method.name}", method.examples[0].request_json if method.examples else "{}"


def _choose(found: Iterator[tuple[str, str]], preferred: str) -> tuple[str, str] | None:
    known = list(found)
    return next((one for one in known if one[0] == preferred), known[0] if known else None)


async def _show_call(console: Console, channel: grpc.aio.Channel, call: tuple[str, str]) -> None:
    method_name, request_json = call
    service, _, name = method_name.partition("/")
    console.print(Text(f"  $ {show.call_line(service, name, request_json)}", style="cyan"))
    try:
        contract = await catalog.get_contract(channel, service=service)
        method = contract.method(service, name)

        async def requests():  # noqa: ANN202 an async generator of one request
            yield method.request(json.loads(request_json))

        async for response in invoke(channel, method, requests(), timeout_s=CALL_TIMEOUT_S):
            lines = json.dumps(method.value(response), indent=2, ensure_ascii=False).splitlines()
            shown = [*lines[:RESPONSE_LINES], *(["..."] if len(lines) > RESPONSE_LINES else [])]
            console.print(Text("\n".join(f"  {line}" for line in shown)))
            break
    except (MeshError, LookupError, ValueError) as err:
        console.print(Text(f"  {problem_of(err).message}", style="red"))


async def _show_search(console: Console, channel: grpc.aio.Channel) -> None:
    console.print("\n[bold]a search[/]")
    console.print(Text(f"  $ llmesh tools search {SEARCH}", style="cyan"))
    try:
        found = await catalog.search(channel, query=SEARCH, limit=3)
    except MeshError as err:
        console.print(Text(f"  {problem_of(err).message}", style="red"))
        return
    show.print_found(console, found, SEARCH)
