"""Cells: one caller at one place, what governance says of it, and what Envoy does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import grpc

from governance.decide import decide
from governance.issuers import Issuers
from governance.words import Caller, Context, Decision, Outcome
from tests.differential.delegated import Delegated
from tests.differential.places import Place
from tests.differential.reference import Verdict, verdict
from tests.differential.rules import ADDRESS
from tests.differential.shown import Shown
from tests.envoy import Answer, Metadata

OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
UNKNOWN, UNAUTHENTICATED = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True, eq=False)
class Cell:
    """A caller at a place."""

    place: Place
    shown: Shown | Delegated
    issuers: Issuers

    @cached_property
    def caller(self) -> Caller:
        """Who it is, by governance.issuers."""
        return self.shown.caller(self.issuers)

    @cached_property
    def decision(self) -> Decision:
        """What governance decides, by the residue that Envoy's rules are made of."""
        return decide(self.place.residue, self.caller, Context(ADDRESS))

    @cached_property
    def verdict(self) -> Verdict:
        """What the policy files say, read by another."""
        return verdict(self.place.texts, self.place.tool, self.caller)

    @property
    def code(self) -> grpc.StatusCode:
        """What Envoy is to answer."""
        if not self.shown.good:
            return UNAUTHENTICATED
        if self.shown.refusal(self.path):
            return DENIED
        if self.decision.outcome is Outcome.ALLOW:
            return OK
        return UNKNOWN if self.place.tool.hidden else DENIED

    @property
    def path(self) -> str:
        """What is called."""
        return self.place.tool.path

    @property
    def metadata(self) -> Metadata:
        """What is sent."""
        return self.shown.metadata(self.path)

    @property
    def size(self) -> int:
        """How much there is to read of it, in letters."""
        return len(str(self.place.texts)) + len(str(self.shown.claims))

    def disagreement(self) -> str:
        """How the decision differs from the policy files; empty if it does not."""
        shadows = tuple((shadow.rule, shadow.outcome is Outcome.ALLOW) for shadow in self.decision.shadows)
        decided = Verdict(self.decision.outcome is Outcome.ALLOW, self.decision.rule, shadows)
        return "" if decided == self.verdict else f"the files say {self.verdict}, decide() says {decided}"

    def difference(self, answer: Answer) -> str:
        """How Envoy's answer differs from the decision; empty if it does not."""
        expected = self.code
        if answer.code is not expected:
            return f"expected {expected.name} by {self.decision}, but {answer.code.name}: {answer.message}"
        if expected is OK:
            seen = {name: answer.seen.get(name) for name in _headers(self.caller)}
            return "" if seen == _headers(self.caller) else f"the tool saw {seen}, not {_headers(self.caller)}"
        refused = self.shown.refusal(self.path)
        if refused:
            told = answer.info.reason, answer.message
            return "" if told == (refused.reason, refused.message) else f"refused by {told}, not by {refused}"
        if expected is DENIED:
            told = answer.info.metadata["rule"], answer.info.metadata["reason"]
            decided = self.decision.rule, self.decision.reason
            # To nobody, Envoy says what permits somebody.
            same = told == decided if self.caller.subject else told[0] == decided[0]
            return "" if same else f"denied by {told}, not by {decided}"
        return ""

    def __str__(self) -> str:
        claims = json.dumps(
            {name: str(value) if value is ... else value for name, value in self.shown.claims.items()}, default=str
        )
        return "\n".join(
            [
                f"{self.place.tool}",
                f"token `{self.shown.name}` of {self.shown.issuer}: {claims}",
                f"{self.caller}",
                f"{self.place.texts}",
            ]
        )


def _headers(caller: Caller) -> Mapping[str, str]:
    """What a tool is told of a caller."""
    return {
        "x-llmesh-issuer": caller.issuer,
        "x-llmesh-subject": caller.subject,
        "x-llmesh-domain": caller.domain,
        "x-llmesh-roles": ",".join(caller.roles),
        "x-llmesh-clearances": ",".join(caller.clearances),
        "x-llmesh-actor": caller.actor,
    }
