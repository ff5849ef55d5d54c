"""`llmesh fanout`: send one request to every tool that takes its type."""

from __future__ import annotations

import json as json_text
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import print_json, print_json_line
from llmesh.problem import Problem

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.message import Message

    from llmesh.api.options.v1 import options_pb2
    from llmesh.branch import Branch
    from llmesh.fanout import FanOut, Options

# The options by what errors call them: the request's fields.
OPTIONS = {
    "selector.where": "--where",
    "quorum": "--quorum",
    "merge": "--merge",
    "allow_writes": "--allow-writes",
}


def fanout(
    type_name: Annotated[
        str, typer.Argument(metavar="TYPE", help="The request's type, e.g. llmesh.api.retrieval.v1.RetrieveRequest.")
    ],
    request: Annotated[str, typer.Argument(metavar="JSON", help="The request.")] = "{}",
    *,
    where: Annotated[
        str, typer.Option("--where", metavar="CEL", help="Of these alone: \"tool.domain == 'handbook'\".")
    ] = "",
    quorum: Annotated[
        int,
        typer.Option("--quorum", min=0, help="So many must answer; the others are cancelled then. Default: all."),
    ] = 0,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Be content with what has come when the time is up.")
    ] = False,
    merge: Annotated[
        str,
        typer.Option(
            "--merge",
            metavar="default|first|JSON",
            help="Make one message of the answers: as the type says, the first one, or by an options.v1.Merge.",
        ),
    ] = "",
    allow_writes: Annotated[
        bool,
        typer.Option("--allow-writes", help="Ask methods that write too. What cannot be undone is never asked."),
    ] = False,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.001, help="Seconds for it all. Default: the mesh's own.")
    ] = None,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Send a request to every tool that takes its type: JSON in, and a row for each tool once it has ended.

    With --json every branch is one line as it comes, and the last line is the summary. Fails if too few answered.
    """
    from llmesh.api.mesh.v1 import mesh_pb2 as pb
    from llmesh.cli.session import open_session

    if best_effort and quorum:
        raise typer.BadParameter("--best-effort takes what comes, and --quorum says how many must: give one of them")
    session = open_session(home, address, name=name)
    stated: Options = {
        "where": where,
        "quorum": quorum,
        "merge": _merge(merge),
        "allow_writes": allow_writes,
        "timeout_s": timeout_s,
    }
    if best_effort:
        stated["completion"] = pb.COMPLETION_BEST_EFFORT
    session.run(lambda channel: _run(channel, type_name, _value(request), stated, lines=json))


async def _run(channel: grpc.aio.Channel, type_name: str, value: object, stated: Options, *, lines: bool) -> None:
    from llmesh.cli.fanout_types import find
    from llmesh.dynamic import BadJson
    from llmesh.fanout import FanOut, request_of

    types = await find(channel, type_name)
    try:
        message = types.taker.request(value)
    except BadJson as err:
        raise Problem(f"the request does not fit: {err}", f"see an example: llmesh tools show {types.service}") from err
    fan_out = FanOut(
        request_of(message, stated),
        types.read,
        channel=lambda: channel,
        opened=lambda: nullcontext(channel),
        timeout_s=stated.get("timeout_s"),
    )
    failures = set[str]()
    told = _readable(channel, fan_out, failures)
    with _told_in_options():
        await (
            _print_lines(fan_out, told)
            if lines
            else _print_table(fan_out, told, merging=stated.get("merge") is not None)
        )
    if not fan_out.summary.met:
        raise Problem("too few answered", _next(failures))


@contextmanager
def _told_in_options() -> Generator[None]:
    """Have errors name the options of the command, in the place of the fields that they set."""
    from llmesh.errors import InvalidCall, MeshError

    try:
        yield
    except MeshError as err:
        for field, option in OPTIONS.items():
            err.message = err.message.replace(f"`{field}`", f"`{option}`")
        if isinstance(err, InvalidCall):
            err.violations = tuple(
                replace(found, field=OPTIONS.get(found.field, found.field)) for found in err.violations
            )
        raise


def _next(failures: set[str]) -> str:
    """What to do where too few answered. failures: the codes of those that did not."""
    if failures == {"INVALID_ARGUMENT"}:
        return "mend the request: all who failed refuse it as it is"
    if "DEADLINE_EXCEEDED" in failures:
        return "give it more time (--timeout), or be content with what has come by then (--best-effort)"
    return "see why they failed; ask others (--where), or ask for fewer (--quorum)"


async def _readable(
    channel: grpc.aio.Channel, fan_out: FanOut[Message], failures: set[str]
) -> AsyncIterator[Branch[Message]]:
    """The branches; what they pack can be shown then, if the mesh has its types. failures: is given their codes."""
    from llmesh.cli.packed import learn_packed

    async for branch in fan_out:
        if branch.error:
            failures.add(branch.error.code.name)
        for each in branch.responses:
            await learn_packed(channel, each)
        yield branch


async def _print_lines(fan_out: FanOut[Message], told: AsyncIterator[Branch[Message]]) -> None:
    from llmesh.cli.fanout_show import branch_value, summary_value, value_of

    async for branch in told:
        print_json_line(branch_value(branch))
    summary = fan_out.summary
    merged = value_of(fan_out.merged) if summary.HasField("merged") else None
    print_json_line({"summary": summary_value(summary), "merged": merged})


async def _print_table(fan_out: FanOut[Message], told: AsyncIterator[Branch[Message]], *, merging: bool) -> None:
    from rich.live import Live

    from llmesh.cli.fanout_show import Branches, ending, value_of
    from llmesh.cli.output import console

    out, branches = console(), Branches()
    # Where nobody watches, the table is told once.
    with Live(branches, console=out) if out.is_terminal else nullcontext():
        async for branch in told:
            branches.add(branch)
    if not out.is_terminal:
        out.print(branches)
    out.print(ending(fan_out.summary))
    if merging and fan_out.summary.met:
        print_json(value_of(fan_out.merged))


def _value(request: str) -> object:
    try:
        return json_text.loads(request)
    except ValueError as err:
        raise Problem(f"the request is not JSON: {err}", 'quote it for your shell: \'{"query": "..."}\'') from err


def _merge(text: str) -> options_pb2.Merge | None:
    """What --merge asks for; None for nothing."""
    from google.protobuf import json_format

    from llmesh.api.options.v1 import options_pb2

    if text in ("", "default"):
        return options_pb2.Merge() if text else None
    if text == "first":
        return options_pb2.Merge(first=options_pb2.First())
    try:
        return json_format.Parse(text, options_pb2.Merge())
    except json_format.ParseError as err:
        why = " ".join(str(err).split()).rstrip(".")
        raise Problem(
            f"`{text}` says no merge: {why}",
            'write default, first, or like {"topK": {"field": "passages", "score": "score", "k": 5}}',
        ) from err
