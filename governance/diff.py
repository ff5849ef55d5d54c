"""What would have become of recorded calls under other rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from governance.bundle import Bundle
from governance.decide import decide, depends_on_context
from governance.residue import specialise
from governance.words import Caller, Outcome, Tool


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call that the rules decided. method: "acme.support.v1.Tickets/GetTicket"."""

    caller: Caller
    method: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Change:
    """A caller and a method whose calls would end otherwise. rules: what decides now, and what would."""

    caller: Caller
    method: str
    before: Outcome
    after: Outcome
    rules: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """What would change. unknown: calls that cannot be replayed, by why."""

    changes: Mapping[Change, int]
    same: int
    unknown: Mapping[str, int]


def compare(old: Bundle, new: Bundle, calls: Mapping[Recorded, int], tools: Mapping[str, Tool]) -> Difference:
    """Replay recorded calls, so many of each, by the rules before and after. tools: what is known of methods now."""
    changes, unknown, same = Counter[Change](), Counter[str](), 0
    for call, count in calls.items():
        tool = tools.get(call.method)
        if tool is None:
            unknown["nothing is known of the method now"] += count
            continue
        residues = specialise(old, tool), specialise(new, tool)
        if any(depends_on_context(residue, call.caller) for residue in residues):
            unknown["a rule asks how the call came"] += count
            continue
        before, after = (decide(residue, call.caller) for residue in residues)
        if before.outcome is not call.outcome:
            unknown["OLD does not say what was recorded"] += count
        elif after.outcome is before.outcome:
            same += count
        else:
            rules = before.rule, after.rule
            changes[Change(call.caller, call.method, before.outcome, after.outcome, rules)] += count
    return Difference(changes, same, unknown)
