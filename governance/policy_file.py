"""The form of the policy files: mesh.yaml and a domain's file, with the tests of their rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from governance.ownership import DOMAIN
from governance.rule import Applies, RuleTest
from governance.words import Caller, Context, Outcome
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.document import Document

EFFECTS = {"read": options.EFFECT_READ, "write": options.EFFECT_WRITE, "destructive": options.EFFECT_DESTRUCTIVE}
STAGES = {
    "experimental": options.STAGE_EXPERIMENTAL,
    "stable": options.STAGE_STABLE,
    "deprecated": options.STAGE_DEPRECATED,
}
COSTS = {"low": options.COST_LOW, "medium": options.COST_MEDIUM, "high": options.COST_HIGH}

EffectWord = Literal["read", "write", "destructive"]
Name = Annotated[str, StringConstraints(min_length=1)]


class AppliesEntry(Document):
    """What a rule is about. A list that is left out stands for everything."""

    domains: frozenset[Name] = Field(default=frozenset(), description="tools of these domains")
    services: frozenset[Name] = Field(default=frozenset(), description="these services, by their full names")
    methods: frozenset[Name] = Field(default=frozenset(), description="methods of these names")
    effects: frozenset[EffectWord] = Field(default=frozenset(), description="methods with these effects")
    roles: frozenset[Name] = Field(default=frozenset(), description="callers with one of these roles")

    def applies(self) -> Applies:
        """In the words of rules."""
        effects = frozenset(EFFECTS[word] for word in self.effects)
        return Applies(self.domains, self.services, self.methods, effects, self.roles)


class CallerEntry(Document):
    """Who calls, in a test. What is left out is empty, but for issuer and subject."""

    issuer: str = Field(default="test", description="name of the issuer that vouches for them")
    subject: str = Field(default="somebody", description="who; empty: nobody, whom nothing is permitted")
    roles: list[str] = Field(default=[], description="their roles")
    domain: str = Field(default="", description="their domain")
    clearances: list[str] = Field(default=[], description="what they are cleared for")
    actor: str = Field(default="", description="the tool that acts for them")

    def caller(self) -> Caller:
        """In the words of rules."""
        return Caller(self.issuer, self.subject, tuple(self.roles), self.domain, tuple(self.clearances), self.actor)


class ContextEntry(Document):
    """How the call comes, in a test."""

    address: str = Field(default="", description="the IP address that it comes from")


class ToolEntry(Document):
    """What a test states of the tool. What is left out counts as a contract that leaves it out."""

    domain: str | None = Field(
        default=None, description="whose it is; left out: that of the file, or of the call's package"
    )
    effect: EffectWord = Field(default="destructive", description="what a call changes")
    stage: Literal["experimental", "stable", "deprecated"] = Field(
        "experimental", description="how far it is relied on"
    )
    data_classes: list[Literal["public", "internal", "confidential", "pii", "secret"]] = Field(
        default=[], description="classes of data in request and response"
    )
    unclassified: bool = Field(default=True, description="whether a field has no class")
    hidden: bool = Field(default=False, description="whether it is hidden from those who may not call it")
    needs_approval: bool = Field(default=False, description="whether a person must approve")
    cost: Literal["low", "medium", "high"] = Field(default="high", description="what a call costs")
    labels: dict[str, str] = Field(default={}, description="its labels")

    def facts(self) -> Mapping[str, object]:
        """As fields of words.Tool; `domain` only if stated."""
        stated: dict[str, object] = {
            "effect": EFFECTS[self.effect],
            "stage": STAGES[self.stage],
            "data_classes": tuple(sorted(set(self.data_classes))),
            "unclassified": self.unclassified,
            "hidden": self.hidden,
            "needs_approval": self.needs_approval,
            "cost": COSTS[self.cost],
            "labels": dict(self.labels),
        }
        return stated if self.domain is None else {**stated, "domain": self.domain}


class RuleTestEntry(Document):
    """A test of a rule: what is to become of a call while the rule is enforced."""

    caller: CallerEntry = Field(default=CallerEntry(), description="who calls; left out: somebody without roles")
    call: str = Field(
        "",
        pattern=r"^([A-Za-z_][\w.]*/[A-Za-z_]\w*)?$",
        description="the method, as in acme.support.v1.Tickets/GetTicket",
    )
    tool: ToolEntry | None = Field(
        default=None, description="facts of the tool; left out: its contract's, by `--protos`"
    )
    context: ContextEntry = Field(default=ContextEntry(), description="how the call comes")
    expect: Literal["allow", "deny"] = Field(description="what is to become of the call")
    rule: str = Field(default="", description="id of the rule that decides, as in mesh/reads; left out: any may")

    @model_validator(mode="after")
    def _names_a_tool(self) -> Self:
        if not self.call and self.tool is None:
            raise ValueError("a test names the method (`call: acme.support.v1.Tickets/GetTicket`) or states `tool`")
        return self

    def test(self) -> RuleTest:
        """In the words of rules."""
        service, _, method = self.call.partition("/")
        return RuleTest(
            self.caller.caller(),
            Context(self.context.address),
            service,
            method,
            self.tool.facts() if self.tool else None,
            Outcome(self.expect),
            self.rule,
        )


class RuleEntry(Document):
    """A rule."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="names the rule in refusals and records")
    effect: Literal["permit", "forbid"] = Field(description="what the rule does where it holds")
    mode: Literal["enforce", "shadow"] = Field(
        "enforce", description="shadow: decides nothing; what it would have done is told in decisions"
    )
    applies: AppliesEntry = Field(AppliesEntry(), description="to which methods and callers; left out: to all")
    when: str = Field("", description="a condition in CEL over `caller`, `tool` and `context`; none: always")
    reason: str = Field(min_length=1, max_length=300, description="what a refused caller reads")
    tests: list[RuleTestEntry] = Field([], description="what is to become of calls; run by `llmesh policy test`")


class MeshRules(Document):
    """The rules of the mesh: a call needs one that permits, and none that forbids."""

    version: Literal[1] = Field(description="of this form of the file")
    rules: list[RuleEntry] = Field([], description="in any order")


class DomainRules(Document):
    """What a domain narrows for its own tools."""

    version: Literal[1] = Field(description="of this form of the file")
    domain: str = Field(pattern=f"^{DOMAIN.pattern}$", description="whose tools; the file's own name")
    default: Literal["inherit", "deny"] = Field(
        description="inherit: what the mesh permits, unless a rule forbids; deny: only what a rule here permits, too"
    )
    rules: list[RuleEntry] = Field([], description="in any order")
