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


class _Applies(Document):
    domains: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    effects: frozenset[Literal["read", "write", "destructive"]] = frozenset()


class _Rule(Document):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    effect: Literal["permit", "forbid"]
    applies: _Applies = _Applies()
    when: str = ""
    reason: str = Field(min_length=1, max_length=300)


class _MeshFile(Document):
    version: Literal[1]
    rules: list[_Rule] = []


class _DomainFile(Document):
    version: Literal[1]
    domain: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    default: Literal["inherit", "deny"]
    rules: list[_Rule] = []


def parse_bundle(mesh: str, domains: Mapping[str, str]) -> Bundle:
    """The bundle that the texts hold. domains: file name -> text.

    Raises DocumentError for the first thing wrong in any file.
    """
    mesh_file = parse_document(_MeshFile, mesh, file="mesh.yaml")
    narrowed: dict[str, Domain] = {}
    for file, text in sorted(domains.items()):
        domain = parse_document(_DomainFile, text, file=file)
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


def _rules(rules: list[_Rule], *, prefix: str, file: str, text: str) -> tuple[Rule, ...]:
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
