"""The bundle: every rule in force, from the texts of the policy files.

The platform team's mesh.yaml permits and forbids; a domain's file, named for
the domain, can only narrow what the mesh permits for that domain's own tools.
A bundle with any error is refused whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from governance.expression import TRUE, Expression
from governance.language import LanguageError, compile_rule
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.document import Document, DocumentError, line_in, parse_document

EFFECTS = {"read": options.EFFECT_READ, "write": options.EFFECT_WRITE, "destructive": options.EFFECT_DESTRUCTIVE}


@dataclass(frozen=True, slots=True)
class Applies:
    """Where a rule applies, known without evaluating anything. An empty set means everywhere."""

    domains: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    effects: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. id: "mesh/reads", "domain/support/pii". permit: else it forbids."""

    id: str
    permit: bool
    applies: Applies
    when: Expression
    reason: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain's narrowing. inherit: what the mesh permits holds; else a rule here must permit it too."""

    inherit: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Every rule in force. digest: sha256 of the texts, in hex."""

    digest: str
    mesh: tuple[Rule, ...]
    domains: Mapping[str, Domain]


class AppliesEntry(Document):
    """What a rule is about. A list that is left out stands for everything."""

    domains: frozenset[str] = Field(default=frozenset(), description="tools of these domains")
    services: frozenset[str] = Field(default=frozenset(), description="these services, by their full names")
    methods: frozenset[str] = Field(default=frozenset(), description="methods of these names")
    effects: frozenset[Literal["read", "write", "destructive"]] = Field(
        default=frozenset(), description="methods with these effects"
    )


class RuleEntry(Document):
    """A rule."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="names the rule in refusals and records")
    effect: Literal["permit", "forbid"] = Field(description="what the rule does where it holds")
    applies: AppliesEntry = Field(AppliesEntry(), description="to which methods; left out: to all")
    when: str = Field("", description="a condition in CEL over `caller` and `tool`; none: always")
    reason: str = Field(min_length=1, max_length=300, description="what a refused caller reads")


class MeshRules(Document):
    """The rules of the mesh: a call needs one that permits, and none that forbids."""

    version: Literal[1] = Field(description="of this form of the file")
    rules: list[RuleEntry] = Field([], description="in any order")


class DomainRules(Document):
    """What a domain narrows for its own tools."""

    version: Literal[1] = Field(description="of this form of the file")
    domain: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="whose tools; the file's own name")
    default: Literal["inherit", "deny"] = Field(
        description="inherit: what the mesh permits, unless a rule forbids; deny: only what a rule here permits, too"
    )
    rules: list[RuleEntry] = Field([], description="in any order")


def parse_bundle(mesh: str, domains: Mapping[str, str]) -> Bundle:
    """The bundle that the texts hold. domains: file name -> text.

    Raises DocumentError for the first thing wrong in any file.
    """
    mesh_file = parse_document(MeshRules, mesh, file="mesh.yaml")
    narrowed: dict[str, Domain] = {}
    for file, text in sorted(domains.items()):
        domain = parse_document(DomainRules, text, file=file)
        if file.rsplit("/", 1)[-1] != f"{domain.domain}.yaml":
            raise DocumentError(
                file,
                line_in(text, "domain"),
                f"`domain` is `{domain.domain}`, so the file must be named {domain.domain}.yaml",
            )
        rules = _rules(domain.rules, prefix=f"domain/{domain.domain}", file=file, text=text)
        narrowed[domain.domain] = Domain(domain.default == "inherit", rules)
    digest = hashlib.sha256(
        "\0".join([mesh, *(part for item in sorted(domains.items()) for part in item)]).encode()
    ).hexdigest()
    return Bundle(digest, _rules(mesh_file.rules, prefix="mesh", file="mesh.yaml", text=mesh), narrowed)


def _rules(rules: list[RuleEntry], *, prefix: str, file: str, text: str) -> tuple[Rule, ...]:
    read: dict[str, Rule] = {}
    for index, rule in enumerate(rules):
        if rule.id in read:
            raise DocumentError(
                file, line_in(text, "rules", index, "id"), f"two rules are named `{rule.id}`; give each its own id"
            )
        try:
            when = compile_rule(rule.when) if rule.when.strip() else TRUE
        except LanguageError as error:
            raise DocumentError(file, line_in(text, "rules", index, "when"), f"rule `{rule.id}`: {error}") from error
        applies = Applies(
            rule.applies.domains,
            rule.applies.services,
            rule.applies.methods,
            frozenset(EFFECTS[effect] for effect in rule.applies.effects),
        )
        read[rule.id] = Rule(f"{prefix}/{rule.id}", rule.effect == "permit", applies, when, rule.reason)
    return tuple(read[key] for key in sorted(read))
