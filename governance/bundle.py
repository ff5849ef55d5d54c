"""The bundle: every rule in force, from the texts of the policy files.

The platform team's mesh.yaml permits and forbids; a domain's file, named for
the domain, can only narrow what the mesh permits for that domain's own tools.
A bundle with any error is refused whole.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from governance.expression import TRUE, Expression
from governance.language import LanguageError, compile_rule
from governance.ownership import DOMAIN, Ownership, is_platform
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
    domain: str = Field(pattern=f"^{DOMAIN.pattern}$", description="whose tools; the file's own name")
    default: Literal["inherit", "deny"] = Field(
        description="inherit: what the mesh permits, unless a rule forbids; deny: only what a rule here permits, too"
    )
    rules: list[RuleEntry] = Field([], description="in any order")


def parse_bundle(mesh: str, domains: Mapping[str, str], *, ownership: Ownership | None = None) -> Bundle:
    """The bundle that the texts hold. domains: file name -> text.

    ownership: who owns what; a rule about a domain or a package that it does
    not know would bear on nobody. None: that is not looked at.
    Raises DocumentError for the first thing wrong in any file.
    """
    mesh_file = parse_document(MeshRules, mesh, file="mesh.yaml")
    if ownership:
        _check_names(mesh_file.rules, ownership, file="mesh.yaml", text=mesh)
    narrowed: dict[str, Domain] = {}
    for file, text in sorted(domains.items()):
        domain = parse_document(DomainRules, text, file=file)
        if file.rsplit("/", 1)[-1] != f"{domain.domain}.yaml":
            raise DocumentError(
                file,
                line_in(text, "domain"),
                f"`domain` is `{domain.domain}`, so the file must be named {domain.domain}.yaml",
            )
        if ownership:
            if domain.domain not in ownership.domains:
                wrong = _unknown_domain(domain.domain, ownership)
                raise DocumentError(file, line_in(text, "domain"), f"`domain`: {wrong}")
            _check_names(domain.rules, ownership, file=file, text=text)
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


def _check_names(rules: list[RuleEntry], ownership: Ownership, *, file: str, text: str) -> None:
    """Refuse rules that say they apply where nothing is."""
    for index, rule in enumerate(rules):
        for key, wrong in _unknown_names(rule.applies, ownership):
            line = line_in(text, "rules", index, "applies", key)
            raise DocumentError(file, line, f"rule `{rule.id}`: `applies.{key}`: {wrong}")


def _unknown_names(applies: AppliesEntry, ownership: Ownership) -> Iterator[tuple[str, str]]:
    """The key where the name stands, and what is wrong with it."""
    for name in sorted(applies.domains - ownership.domains):
        yield "domains", _unknown_domain(name, ownership)
    for name in sorted(applies.services):
        package = name.rpartition(".")[0]
        if ownership.domain_of(package) is None and not is_platform(package):
            hint = _nearest(package, ownership.prefixes, "; did you mean one in `{}`?")
            yield "services", f"no domain owns the package of `{name}` by ownership.yaml{hint}"


def _unknown_domain(name: str, ownership: Ownership) -> str:
    known = f"; expected one of {', '.join(sorted(ownership.domains))}"
    return (
        f"`{name}` owns nothing by ownership.yaml{_nearest(name, ownership.domains, '; did you mean `{}`?') or known}"
    )


def _nearest(name: str, known: Collection[str], hint: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return hint.format(near[0]) if near else ""
