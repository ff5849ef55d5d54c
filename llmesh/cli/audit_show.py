"""Decision records as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.rpc import code_pb2  # pyright: ignore[reportMissingTypeStubs]
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from llmesh.api.records.v1 import records_pb2 as pb
from llmesh.cli.show import table
from llmesh.log import printable

COLOURS = {
    pb.OUTCOME_ALLOWED: "green",
    pb.OUTCOME_UNKNOWN_METHOD: "yellow",
    pb.OUTCOME_MALFORMED: "yellow",
}


def records_table(records: Sequence[pb.Record]) -> Table:
    """One row a record."""
    rows = table("time", "call", "caller", "method", "outcome", "code", "took", "why")
    for record in records:
        rows.add_row(*_cells(record))
    return rows


def record_line(record: pb.Record) -> Text:
    """One record on a line of its own."""
    return Text("  ").join(_cells(record))


def tree_of(records: Sequence[pb.Record], call_id: str) -> Tree:
    """The calls below a call, each below what caused it. Of a call with two records, the one of its end."""
    calls = {record.call_id: record for record in sorted(records, key=lambda record: record.phase)}
    nodes: dict[str, Tree] = {}
    for record in calls.values():
        nodes[record.call_id] = Tree(record_line(record))
    for record in calls.values():
        if record.call_id != call_id and record.parent in nodes:
            nodes[record.parent].children.append(nodes[record.call_id])
    return nodes[call_id]


def _cells(record: pb.Record) -> list[Text]:
    start = record.phase == pb.Record.PHASE_START
    outcome = pb.Outcome.Name(record.outcome).removeprefix("OUTCOME_").lower()
    code = "" if start else code_pb2.Code.Name(record.code)
    took = "" if start else f"{record.latency.ToMilliseconds()} ms"
    counted = f" x{record.counted}" if record.counted else ""
    return [
        Text(_shown(record.time.ToDatetime())),
        Text(printable(record.call_id), style="dim"),
        Text(printable(_who(record))),
        # What a caller wrote, where there is no such method.
        Text(printable(f"{record.service}/{record.method}")),
        Text(f"{outcome} (start)" if start else f"{outcome}{counted}", style=COLOURS.get(record.outcome, "red")),
        Text(code),
        Text(took),
        Text(printable(_why(record))),
    ]


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _who(record: pb.Record) -> str:
    caller = record.caller
    return f"{caller.subject or '-'} by {caller.actor}" if caller.actor else caller.subject or "-"


def _why(record: pb.Record) -> str:
    """The rule that decided, what shadow rules would have done, and in whose words the call ended."""
    would = [
        f"{shadow.rule} would {'allow' if shadow.outcome == pb.OUTCOME_ALLOWED else 'deny'}" for shadow in record.shadow
    ]
    rule = record.rule or ("no rule permits" if record.outcome == pb.OUTCOME_DENIED else "")
    return "; ".join(filter(None, (rule, *would, record.details)))
