"""Branches of a fan-out as people read them, and as programs do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import cast

from google.protobuf import any_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.branch import Branch
from llmesh.catalog import as_json
from llmesh.cli.edge import failure_of
from llmesh.cli.show import table
from llmesh.log import printable

# Of an answer, in a row; --json has it whole.
ANSWER_CHARS = 100
ENDS = {
    pb.Summary.END_ALL_ENDED: "all have ended",
    pb.Summary.END_ENOUGH: "enough have answered",
    pb.Summary.END_OUT_OF_REACH: "too many have failed",
    pb.Summary.END_DEADLINE: "its time is up",
}


class Branches:
    """The table of branches, drawn anew as they come."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        # By method: of a stream, what has come so far.
        self._rows: dict[str, tuple[Branch[Message], int]] = {}

    def add(self, branch: Branch[Message]) -> None:
        """Show a branch, or more of one that streams. What was no answer stays its error, however it ends."""
        name = f"{branch.tool}/{branch.method}"
        before, count = self._rows.get(name, (branch, 0))
        self._rows[name] = replace(branch, error=branch.error or before.error), count + len(branch.responses)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As rich asks."""
        rows = table("method", "status", "took", "sent", "answer")
        for name, (branch, count) in self._rows.items():
            rows.add_row(Text(printable(name), style="bold"), *_cells(branch, count))
        if not console.is_terminal:
            yield rows
            return
        ended = sum(branch.ended for branch, _ in self._rows.values())
        yield Group(rows, Text(f"{ended} ended, {time.monotonic() - self._begun_s:.1f} s", style="dim"))


def ending(summary: pb.Summary) -> Text:
    """How it ended, in a sentence."""
    counts = {
        "answered": summary.answered_count,
        "failed": summary.failed_count,
        "cancelled": summary.cancelled_count,
        "denied to you": summary.denied_count,
        "not asked": summary.unasked_count,
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "answered")
    return Text(f"{told}: {ENDS.get(summary.end, 'it has ended')}")


def branch_value(branch: Branch[Message]) -> dict[str, object]:
    """A branch for programs. Every key is always there."""
    return {
        "tool": branch.tool,
        "method": branch.method,
        "ended": branch.ended,
        "responses": [value_of(each) for each in branch.responses],
        "error": failure_of(branch.error) if branch.error else None,
        "latency_ms": _ms(branch.latency_s),
        "attempts": branch.attempts,
        "provenance": list(branch.provenance),
        "call_id": branch.call_id,
    }


def summary_value(summary: pb.Summary) -> dict[str, object]:
    """A summary for programs, without what was merged."""
    told = pb.Summary()
    told.CopyFrom(summary)
    told.ClearField("merged")
    return as_json(told)


def value_of(message: Message) -> dict[str, object]:
    """A message as a JSON value; of one that has none, as its type is not known here, or it holds no such, the type.

    One tool's answer must not end what is shown of the others.
    """
    if isinstance(message, any_pb2.Any):
        return {"@type": message.type_url}
    pool = cast("DescriptorPool", message.DESCRIPTOR.file.pool)
    try:
        return json_format.MessageToDict(message, descriptor_pool=pool)
    except (json_format.Error, TypeError, ValueError):
        return {"@type": f"type.googleapis.com/{message.DESCRIPTOR.full_name}"}


def _cells(branch: Branch[Message], count: int) -> tuple[Text, ...]:
    if not branch.ended:
        return Text("streams", style="cyan"), Text(""), Text(""), Text(f"{count} so far")
    took, sent = Text(f"{_ms(branch.latency_s):.0f} ms"), Text(str(branch.attempts))
    if branch.error:
        return Text(branch.error.code.name, style="red"), took, sent, Text(printable(branch.error.message))
    if count != 1:
        return Text("OK", style="green"), took, sent, Text(f"{count} responses")
    answer = json.dumps(value_of(branch.responses[0]), ensure_ascii=False) if branch.responses else ""
    shown = answer if len(answer) <= ANSWER_CHARS else f"{answer[:ANSWER_CHARS]}..."
    return Text("OK", style="green"), took, sent, Text(printable(shown))


def _ms(latency_s: float) -> float:
    return timedelta(seconds=latency_s) / timedelta(milliseconds=1)
