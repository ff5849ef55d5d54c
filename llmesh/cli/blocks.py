"""`llmesh block`, `llmesh unblock`, `llmesh blocks`: stop something at once, and let it go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli import moments
from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import console, print_json, say
from llmesh.problem import Problem

if TYPE_CHECKING:
    from rich.table import Table

    from llmesh.api.blocks.v1 import blocks_pb2 as pb

_TARGET = "TOOL|METHOD|DOMAIN|CALLER"

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar=_TARGET,
        help="A tool (acme.support.v1.Tickets), a method (acme.support.v1.Tickets/GetTicket), a domain (support), "
        "or a caller as ISSUER:SUBJECT (dev:ana).",
    ),
]


def block(
    target: TargetArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why. Whoever is refused reads it.")],
    until: Annotated[
        str, typer.Option("--until", help="When it ends by itself: a span (90s, 30m, 2h, 1d), or a time by RFC 3339.")
    ] = "",
    cut: Annotated[bool, typer.Option("--cut", help="End calls that are open, too.")] = False,
    unknown: Annotated[bool, typer.Option("--unknown", help="Also if the mesh doesn't know it, or not yet.")] = False,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Stop a tool, a method, a domain or a caller at once, whatever the rules say.

    It holds until `llmesh unblock`, or the time that --until names; restarts do not end it.
    """
    from rich.markup import escape

    from llmesh import blocks, catalog
    from llmesh.api.blocks.v1 import blocks_pb2 as pb
    from llmesh.cli.session import open_session

    request = pb.BlockRequest(target=_target(target), reason=reason, cut=cut, allow_unknown=unknown)
    if until:
        request.until.CopyFrom(moments.after(until, now=datetime.now(UTC)))
    session = open_session(home, address, name=name)
    answer = session.run(lambda channel: blocks.block(channel, request))
    if json:
        print_json(catalog.as_json(answer))
        return
    ends = f" until {moments.shown(answer.block.until)}" if answer.block.HasField("until") else ""
    say(f"blocked{ends}: [bold]{_shown(answer.block.target)}[/]{_soon(in_force=answer.in_force)}")
    if cut:
        say(f"open calls that were ended: {answer.calls_ended}")
    for where in answer.not_cut:
        say(f"[yellow]not cut[/]: calls that are open at {escape(where)} go on; to end them, restart what serves there")


def unblock(
    target: TargetArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Let something go on that was blocked."""
    from llmesh import blocks, catalog
    from llmesh.api.blocks.v1 import blocks_pb2 as pb
    from llmesh.cli.session import open_session

    request = pb.UnblockRequest(target=_target(target), reason=reason)
    session = open_session(home, address, name=name)
    answer = session.run(lambda channel: blocks.unblock(channel, request))
    if json:
        print_json(catalog.as_json(answer))
    elif answer.HasField("block"):
        say(f"unblocked: [bold]{_shown(answer.block.target)}[/]{_soon(in_force=answer.in_force)}")
    else:
        say(f"[bold]{_shown(request.target)}[/] was not blocked")


def list_blocks(
    *,
    history: Annotated[
        bool, typer.Option("--history", help="What was blocked and unblocked, by whom; newest first.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, of the history.")] = 100,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """List what is blocked, and why."""
    from llmesh import blocks, catalog
    from llmesh.cli.session import open_session

    session = open_session(home, address, name=name)
    if history:
        changes = session.run(lambda channel: blocks.list_changes(channel, limit=limit))
        shown, found = {"changes": [catalog.as_json(one) for one in changes]}, _history_table(changes)
    else:
        known = session.run(blocks.list_blocks)
        shown, found = {"blocks": [catalog.as_json(one) for one in known]}, _blocks_table(known)
    if json:
        print_json(shown)
    else:
        console().print(found if found.row_count else "nothing that you may know of is blocked")


def _target(text: str) -> pb.Target:
    """What a text names. Raises Problem."""
    from llmesh.api.blocks.v1 import blocks_pb2 as pb

    issuer, colon, subject = text.partition(":")
    if colon and issuer and subject:
        return pb.Target(caller=pb.Caller(issuer=issuer, subject=subject))
    if "/" in text:
        return pb.Target(method=text.removeprefix("/"))
    if "." in text:
        return pb.Target(tool=text)
    if not text or colon:
        raise Problem(f"`{text}` names nothing that can be blocked", f"give one of {_TARGET}: llmesh block --help")
    return pb.Target(domain=text)


def _shown(target: pb.Target) -> str:
    from rich.markup import escape

    kind = target.WhichOneof("target")
    if kind is None:
        return ""
    if kind == "caller":
        return escape(f"{target.caller.issuer}:{target.caller.subject}")
    return escape(str(getattr(target, kind)))


def _soon(*, in_force: bool) -> str:
    return "" if in_force else "; Envoy has not said yet that it knows: see `llmesh status`"


def _blocks_table(found: Iterable[pb.Block]) -> Table:
    from rich.markup import escape

    from llmesh.cli import show

    rows = show.table("what", "since", "until", "by", "id", "why")
    for one in found:
        until = moments.shown(one.until) if one.HasField("until") else "no end"
        by = f"{one.blocked_by.issuer}:{one.blocked_by.subject}"
        since, what = moments.shown(one.block_time), f"[bold]{_shown(one.target)}[/]"
        rows.add_row(what, since, until, escape(by), escape(one.id), escape(one.reason))
    return rows


def _history_table(changes: Iterable[pb.Change]) -> Table:
    from rich.markup import escape

    from llmesh.api.blocks.v1 import blocks_pb2 as pb
    from llmesh.cli import show

    rows = show.table("when", "what was done", "to what", "by", "why")
    for one in changes:
        action = pb.Change.Action.Name(one.action).removeprefix("ACTION_").lower()
        by = f"{one.changed_by.issuer}:{one.changed_by.subject}" if one.HasField("changed_by") else ""
        why = one.block.reason if one.action == pb.Change.ACTION_BLOCKED else one.reason
        rows.add_row(
            moments.shown(one.change_time), action, f"[bold]{_shown(one.block.target)}[/]", escape(by), escape(why)
        )
    return rows
