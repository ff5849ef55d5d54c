"""What the rules said of a call that is over: by the bundle in force at the time, for the caller as it was logged.

Envoy decides by one boolean a method and does not know which rule permitted.
Here the same residue is interpreted once more, off the path of calls.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.catalog import Tool
from gateway.records.logged import CASES, DELEGATION, Case, Logged, Outcome
from gateway.snapshot.build import facts
from governance import words
from governance.bundle import Bundle
from governance.decide import decide
from governance.expression import fields_of
from governance.residue import Residue, specialise

__all__ = ["Judge", "Judgement"]

log = logging.getLogger(__name__)

# Bundles that are known with the times at which they came.
BUNDLES = 32
# So long after a bundle came, calls may still have been decided by the one before it, or by it a little earlier.
TURNS_WITHIN_US = 30_000_000
# Methods under a bundle that are known, and decisions, those of all methods together.
MAX_METHODS = 50_000
MAX_DECISIONS = 100_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules say of a call.

    rule: which one decided, "block/ID" for a block; empty where none permits,
    or it is not known. bundle: digest of the one that says so; empty where no
    rule was asked, or no bundle that is known says what became of the call.
    shadow: (rule id, "allow" or "deny") of the rules in mode shadow that held.
    """

    bundle: str = ""
    rule: str = ""
    shadow: tuple[tuple[str, str], ...] = ()


UNJUDGED = Judgement()
_DECIDED = {Outcome.ALLOWED: words.Outcome.ALLOW, Outcome.DENIED: words.Outcome.DENY}


@dataclass(frozen=True, slots=True, eq=False)
class _Method:
    """One method under one bundle. tool: what it was made of. by_address: whether a rule asks where a call is from."""

    tool: Tool
    residue: Residue
    by_address: bool


def _method_of(tool: Tool, residue: Residue) -> _Method:
    kinds = (residue.permits, residue.forbids, residue.domain_permits or ())
    shadows = (residue.shadow_permits, residue.shadow_forbids, residue.shadow_domain_permits)
    clauses = (clause for kind in (*kinds, *shadows) for clause in kind)
    by_address = any(each.root == "context" for clause in clauses for each in fields_of(clause.when))
    return _Method(tool, residue, by_address)


class Judge:
    """Judges calls of the tools that are on the mesh. Of one thread, but for `in_force`."""

    def __init__(self, tool: Callable[[str], Tool | None]) -> None:
        """tool: the one of a name that is on the mesh now; None if none is."""
        self._tool = tool
        self._bundles: deque[tuple[int, Bundle]] = deque(maxlen=BUNDLES)
        # By bundle, service, method and contract.
        self._methods: dict[tuple[str, str, str, str], _Method] = {}
        # By method, caller and address; empty where no rule asks for it.
        self._decisions: dict[tuple[_Method, words.Caller, str], words.Decision] = {}
        # What the newest bundle says of the calls of a case, made of that tool.
        self._agreed: dict[Case, tuple[Tool | None, Judgement]] = {}
        # Calls that ended otherwise than any bundle that is known says.
        self.disputed = 0

    def in_force(self, since_us: int, bundle: Bundle) -> None:
        """The bundle is in force from then on."""
        self._bundles.append((since_us, bundle))
        self._agreed.clear()

    def judge(self, logged: Logged) -> Judgement:
        """What the rules say of the call."""
        case = logged.case
        if case.outcome is Outcome.BLOCKED:
            return Judgement(rule=case.rule)
        wanted = _DECIDED.get(case.outcome)
        if wanted is None or case.rule == DELEGATION:
            return UNJUDGED
        newest = bool(self._bundles) and logged.time_us >= self._bundles[-1][0]
        known = self._agreed.get(case) if newest else None
        if known and known[0] is self._tool(case.service):
            return known[1]
        return self._judged(logged, wanted, newest=newest)

    def _judged(self, logged: Logged, wanted: words.Outcome, *, newest: bool) -> Judgement:
        """By each bundle that it may have been decided by, until one says what became of it."""
        case, asked = logged.case, False
        for bundle in self._at(logged.time_us):
            method = self._method(bundle, case)
            if method is None:
                continue
            asked = True
            decision = self._decision(method, case)
            if decision.outcome is wanted and case.rule in ("", decision.rule):
                shadow = tuple((each.rule, each.outcome.value) for each in decision.shadows)
                judgement = Judgement(bundle.digest, decision.rule, shadow)
                if newest and bundle is self._bundles[-1][1]:
                    self._agree(case, judgement)
                return judgement
        if asked:
            self.disputed += 1
            log.error("a call ended otherwise than the rules say", extra={"call_id": logged.call_id})
        return UNJUDGED

    def _agree(self, case: Case, judgement: Judgement) -> None:
        if len(self._agreed) >= CASES:
            self._agreed.clear()
        self._agreed[case] = (self._tool(case.service), judgement)

    def _decision(self, method: _Method, case: Case) -> words.Decision:
        address = case.address if method.by_address else ""
        key = (method, case.caller, address)
        known = self._decisions.get(key)
        if known is None:
            if len(self._decisions) >= MAX_DECISIONS:
                self._decisions.clear()
            known = self._decisions[key] = decide(method.residue, case.caller, words.Context(address))
        return known

    def _at(self, time_us: int) -> Iterator[Bundle]:
        """The bundle in force at a time, then those that came or went about then: Envoy takes a change tool by tool."""
        near: list[Bundle] = []
        until_us: int | None = None
        for since_us, bundle in reversed(self._bundles):
            ended = until_us is not None and until_us <= time_us
            if since_us <= time_us and not ended:
                yield bundle
            elif since_us <= time_us + TURNS_WITHIN_US and (until_us is None or until_us >= time_us - TURNS_WITHIN_US):
                near.append(bundle)
            until_us = since_us
        yield from near

    def _method(self, bundle: Bundle, case: Case) -> _Method | None:
        """None if the mesh has no such method, and had none when it was last asked for it."""
        key = (bundle.digest, case.service, case.method, case.contract)
        known = self._methods.get(key)
        tool = self._tool(case.service)
        if tool is None or tool.contract.digest != case.contract or (known and known.tool is tool):
            return known
        method = next((method for method in tool.methods if method.name == case.method), None)
        if method is None:
            return None
        if len(self._methods) >= MAX_METHODS:
            self._methods.clear()
            self._decisions.clear()
        made = self._methods[key] = _method_of(tool, specialise(bundle, facts(tool, method)))
        return made
