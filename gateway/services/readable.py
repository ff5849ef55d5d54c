"""What each caller reads of the decision records: the one place that decides it.

Everyone reads the records of their own calls, an auditor all. To others, a
tool that they may not see looks like no tool here too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.records.judgement import Judgement
from gateway.records.logged import Outcome
from gateway.records.store import Filter, Record
from gateway.services.visible import View
from governance.ownership import PLATFORM
from governance.words import Caller
from llmesh.api.records.v1 import records_pb2 as pb

AUDITOR, OWNER = "auditor", "owner"
# What tells that there was a tool to refuse the call.
_TELLING = frozenset({Outcome.DENIED, Outcome.BLOCKED})


@dataclass(frozen=True, slots=True)
class Readable:
    """Records as one caller, who calls for themselves, may read them."""

    view: View
    caller: Caller

    def told(self, record: Record, *, outcome: int = pb.OUTCOME_UNSPECIFIED) -> Record | None:
        """The record as the caller reads it; None if it is not theirs to read, or then has another outcome."""
        if self._sees_all:
            return record
        made_by = record.logged.case.caller
        # What is counted apart would tell of tools that they may not see.
        if record.counted or (made_by.issuer, made_by.subject) != (self.caller.issuer, self.caller.subject):
            return None
        told = record if self._may_know(record) else _as_of_no_tool(record)
        return told if outcome in (pb.OUTCOME_UNSPECIFIED, told.logged.case.outcome) else None

    def wanted(self, asked: pb.RecordFilter) -> Filter:
        """What is asked for, as it is kept. Of these, some may have another outcome once they are told."""
        outcomes = frozenset({Outcome(asked.outcome)} if asked.outcome else ())
        if Outcome.UNKNOWN_METHOD in outcomes and not self._sees_all:
            outcomes |= _TELLING
        return Filter(
            own=None if self._sees_all else self.caller,
            caller=asked.caller,
            tool=asked.tool,
            outcomes=outcomes,
            since_us=asked.since.ToMicroseconds() if asked.HasField("since") else 0,
        )

    @property
    def _sees_all(self) -> bool:
        return AUDITOR in self.caller.roles or (self.caller.domain == PLATFORM and OWNER in self.caller.roles)

    def _may_know(self, record: Record) -> bool:
        # Whom a tool answered knows of it. One that is gone may have been hidden.
        if record.logged.case.outcome is Outcome.ALLOWED:
            return True
        tool = self.view.catalog.tools.get(record.logged.case.service)
        return tool is not None and (not tool.sheet.hidden or self.view.see(tool, self.caller) is not None)


def _as_of_no_tool(record: Record) -> Record:
    """The record of the same call, had there been no such method."""
    case = replace(record.logged.case, contract="")
    if case.outcome not in _TELLING:
        return replace(record, logged=record.logged._replace(case=case))
    case = replace(case, outcome=Outcome.UNKNOWN_METHOD, rule="", details="")
    return replace(record, logged=record.logged._replace(case=case), judgement=Judgement())
