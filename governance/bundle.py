"""The bundle: every rule in force, from the texts of the policy files.

The platform team's mesh.yaml permits and forbids; a domain's file, named for
the domain, can only narrow what the mesh permits for that domain's own tools.
A bundle with any error is refused whole.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from governance.expression import TRUE
from governance.language import LanguageError, compile_rule
from governance.ownership import Ownership, is_platform
from governance.policy_file import AppliesEntry, DomainRules, MeshRules, RuleEntry
from governance.rule import Applies, Rule, Rules, RuleTest
from llmesh.document import DocumentError, line_in, parse_document

# Rules that are held as they were made; more than a mesh has.
KEPT_RULES = 65_536


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain's narrowing. inherit: what the mesh permits holds; else a rule here must permit it too."""

    inherit: bool
    rules: Rules


@dataclass(frozen=True, slots=True)
class Bundle:
    """Every rule in force. digest: sha256 of the texts, in hex. tests: rule id -> those beside it."""

    digest: str
    mesh: Rules
    domains: Mapping[str, Domain]
    tests: Mapping[str, tuple[RuleTest, ...]]


def parse_bundle(mesh: str, domains: Mapping[str, str], *, ownership: Ownership | None = None) -> Bundle:
    """The bundle that the texts hold. domains: file name -> text.

    ownership: who owns what; a rule about a domain or a package that it does
    not know would bear on nobody. None: that is not looked at.
    Raises DocumentError for the first thing wrong in any file.
    """
    mesh_file = parse_document(MeshRules, mesh, file="mesh.yaml")
    if ownership:
        _check_names(mesh_file.rules, ownership, file="mesh.yaml", text=mesh)
    mesh_rules = _rules(mesh_file.rules, prefix="mesh", file="mesh.yaml", text=mesh)
    tests = _tests(mesh_file.rules, prefix="mesh")
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
        tests |= _tests(domain.rules, prefix=f"domain/{domain.domain}")
    digest = hashlib.sha256(
        "\0".join([mesh, *(part for item in sorted(domains.items()) for part in item)]).encode()
    ).hexdigest()
    return Bundle(digest, mesh_rules, narrowed, tests)


def _rules(rules: list[RuleEntry], *, prefix: str, file: str, text: str) -> Rules:
    read: dict[str, Rule] = {}
    for index, rule in enumerate(rules):
        if rule.id in read:
            raise DocumentError(
                file, line_in(text, "rules", index, "id"), f"two rules are named `{rule.id}`; give each its own id"
            )
        try:
            read[rule.id] = _rule(
                f"{prefix}/{rule.id}",
                effect=rule.effect,
                mode=rule.mode,
                applies=rule.applies.applies(),
                when=rule.when.strip(),
                reason=rule.reason,
            )
        except LanguageError as error:
            raise DocumentError(file, line_in(text, "rules", index, "when"), f"rule `{rule.id}`: {error}") from error
    return Rules(tuple(read[key] for key in sorted(read)))


@functools.lru_cache(maxsize=KEPT_RULES)
def _rule(name: str, *, effect: str, mode: str, applies: Applies, when: str, reason: str) -> Rule:
    # A rule that was not edited stays the same object, and what was made of it stands.
    return Rule(
        name,
        permit=effect == "permit",
        applies=applies,
        when=compile_rule(when) if when else TRUE,
        reason=reason,
        shadow=mode == "shadow",
    )


def _tests(rules: list[RuleEntry], *, prefix: str) -> dict[str, tuple[RuleTest, ...]]:
    return {f"{prefix}/{rule.id}": tuple(entry.test() for entry in rule.tests) for rule in rules}


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
        if ownership.owner_of(name) is None and not is_platform(name):
            hint = _nearest(name.rpartition(".")[0], ownership.prefixes, "; did you mean one in `{}`?")
            yield "services", f"no domain owns the package of `{name}` by ownership.yaml{hint}"


def _unknown_domain(name: str, ownership: Ownership) -> str:
    known = f"; expected one of {', '.join(sorted(ownership.domains))}"
    return (
        f"`{name}` owns nothing by ownership.yaml{_nearest(name, ownership.domains, '; did you mean `{}`?') or known}"
    )


def _nearest(name: str, known: Collection[str], hint: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return hint.format(near[0]) if near else ""
