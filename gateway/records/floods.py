"""Which refused calls have a record each, and which are counted in one: floods of them must not push out all else.

Whoever may call nothing can still be refused as often as they like. Calls that
were let through are never counted together, whoever makes them. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.records.logged import Logged, Outcome

__all__ = ["Alike", "Floods"]

MINUTE_US = 60_000_000
# How late a refused call may be logged, in minutes: it waits for none of what calls wait for.
LATE_MINUTES = 5


class Alike(NamedTuple):
    """What refused calls of one minute have in common that are counted together.

    service, method: empty where the mesh has none of these names, for then the
    caller may have written others each time.
    """

    minute: int
    issuer: str
    subject: str
    actor: str
    outcome: Outcome
    rule: str
    service: str
    method: str


class Floods:
    """Refused calls of this minute, by who made them. Those who show no identity are one."""

    def __init__(self, per_minute: int) -> None:
        """per_minute: refused calls of each caller that have a record each."""
        self._per_minute = per_minute
        self._minute = 0
        self._refused: dict[tuple[str, str], int] = {}
        # Ids of the records that count.
        self.counting: dict[Alike, int] = {}

    def counted_as(self, logged: Logged) -> Alike | None:
        """What the call is counted with; None if it is to have a record of its own."""
        case = logged.case
        if case.outcome is Outcome.ALLOWED:
            return None
        self._turn_to(logged.time_us // MINUTE_US)
        caller = case.caller
        who = caller.issuer, caller.subject
        refused = self._refused[who] = self._refused.get(who, 0) + 1
        if refused <= self._per_minute:
            return None
        named = (case.service, case.method) if case.contract else ("", "")
        return Alike(self._minute, *who, caller.actor, case.outcome, case.rule, *named)

    def _turn_to(self, minute: int) -> None:
        # A call of a minute that is over counts to the one that is not, unless the clock had only jumped ahead.
        if not self._minute - LATE_MINUTES <= minute <= self._minute:
            self._minute = minute
            self._refused.clear()
            self.counting.clear()
