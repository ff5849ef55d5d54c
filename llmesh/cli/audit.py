"""`llmesh audit`: what became of calls, and which rule decided."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli import moments
from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import console, print_json_line

if TYPE_CHECKING:
    from llmesh.api.records.v1 import records_pb2 as pb
    from llmesh.cli.session import Session

app = typer.Typer(
    help="See what became of calls: your own, or everyone's if you are an auditor.", invoke_without_command=True
)
NONE = "no call is recorded that you may read and that fits"


class OutcomeName(StrEnum):
    """What the mesh decided; the words of records.proto."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNAUTHENTICATED = "unauthenticated"
    BLOCKED = "blocked"
    LIMITED = "limited"
    UNKNOWN_METHOD = "unknown_method"
    MALFORMED = "malformed"


@app.callback()
def audit(
    context: typer.Context,
    *,
    caller: Annotated[str, typer.Option("--caller", help="Of calls by this subject, or by this tool for others.")] = "",
    tool: Annotated[
        str, typer.Option("--tool", metavar="TOOL[/METHOD]", help="Of calls to this tool, or to this method.")
    ] = "",
    outcome: Annotated[OutcomeName | None, typer.Option("--outcome", help="With this outcome.")] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME|SPAN", help="Of calls since then: 90s, 5m, 2h, 7d, or a time by RFC 3339."
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Then each one as it is made, until Ctrl-C.")] = False,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """List decision records, the newest last. With --json, one record a line."""
    if context.invoked_subcommand:
        return
    from llmesh import records
    from llmesh.api.records.v1 import records_pb2 as pb
    from llmesh.cli.session import open_session

    wanted = pb.RecordFilter(caller=caller, tool=tool)
    if outcome:
        wanted.outcome = pb.Outcome.Value(f"OUTCOME_{outcome.name}")
    if since:
        wanted.since.CopyFrom(moments.before(since, now=datetime.now(UTC)))
    session = open_session(home, address, name=name)
    if follow:
        _follow(session, wanted, limit=limit, json=json)
        return
    found = session.run(lambda channel: records.list_records(channel, wanted, limit=limit))
    _print(found, json=json)


@app.command("tree")
def tree(
    call: Annotated[str, typer.Argument(help="The call's id: x-llmesh-call-id of its answer.")],
    *,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Show what a call caused: the calls that tools made for it, theirs, and so on."""
    from llmesh import records
    from llmesh.catalog import as_json
    from llmesh.cli.audit_show import tree_of
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    found = session.run(lambda channel: records.get_tree(channel, call_id=call))
    if json:
        for record in found.records:
            print_json_line(as_json(record))
    else:
        console().print(tree_of(found.records, call))
    if found.truncated and not json:
        console().print(f"only the first {len(found.records)} records are shown")


def _print(found: list[pb.Record], *, json: bool) -> None:
    from llmesh.catalog import as_json
    from llmesh.cli.audit_show import records_table

    if json:
        for record in found:
            print_json_line(as_json(record))
    else:
        console().print(records_table(found) if found else NONE)


def _follow(session: Session, wanted: pb.RecordFilter, *, limit: int, json: bool) -> None:
    from llmesh import records
    from llmesh.catalog import as_json
    from llmesh.cli.audit_show import record_line

    async def within() -> None:
        async with session.channel() as channel:
            async for record in records.watch_records(channel, wanted, limit=limit):
                if json:
                    print_json_line(as_json(record))
                else:
                    console().print(record_line(record))

    import asyncio

    try:
        asyncio.run(within())
    except KeyboardInterrupt:
        raise typer.Exit from None
