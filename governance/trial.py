"""The tests beside the rules, run as the mesh would decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any as Untyped

from governance.bundle import Bundle
from governance.decide import decide, holds
from governance.ownership import Ownership
from governance.residue import specialise
from governance.rule import Rule, Rules, RuleTest
from governance.words import Tool


@dataclass(frozen=True, slots=True)
class Trial:
    """One test that was run. number: from 1, among those of its rule. fault: what went otherwise; empty if nothing did.

    held: whether the rule itself held of the call; None if that could not be told.
    """

    rule: str
    number: int
    test: RuleTest
    fault: str
    held: bool | None


def run_tests(bundle: Bundle, contracts: Mapping[str, Tool], ownership: Ownership | None = None) -> Iterator[Trial]:
    """Run every test, in order of the rules' ids.

    A test is of the whole bundle with its rule enforced, be it in shadow mode
    or not. contracts: "acme.support.v1.Tickets/GetTicket" -> facts.
    """
    for rule in every_rule(bundle):
        enforced = _enforced(bundle, rule) if rule.shadow else bundle
        for number, test in enumerate(bundle.tests.get(rule.id, ()), 1):
            tool = _tool(test, rule, contracts, ownership)
            if isinstance(tool, str):
                yield Trial(rule.id, number, test, tool, None)
                continue
            held = holds(rule, tool, test.caller, test.context)
            yield Trial(rule.id, number, test, _fault(enforced, tool, test), held)


def every_rule(bundle: Bundle) -> Iterator[Rule]:
    """The mesh's rules, then each domain's."""
    yield from bundle.mesh
    for _, domain in sorted(bundle.domains.items()):
        yield from domain.rules


def domain_of(rule: str) -> str:
    """The domain that a rule is of, by its id; empty for one of the mesh."""
    return rule.split("/")[1] if rule.startswith("domain/") else ""


def _fault(bundle: Bundle, tool: Tool, test: RuleTest) -> str:
    decision = decide(specialise(bundle, tool), test.caller, test.context)
    by = f"by {decision.rule}" if decision.rule else "as no rule permits"
    if decision.outcome is not test.expect:
        return f"expected {test.expect.value}, but it is {decision.outcome.value} {by}: {decision.reason}"
    if test.decides and decision.rule != test.decides:
        return f"expected {test.expect.value} by {test.decides}, but it is {by}"
    return ""


def _enforced(bundle: Bundle, rule: Rule) -> Bundle:
    def within(rules: Rules) -> Rules:
        return Rules(tuple(replace(each, shadow=False) if each.id == rule.id else each for each in rules))

    domains = {name: replace(domain, rules=within(domain.rules)) for name, domain in bundle.domains.items()}
    return replace(bundle, mesh=within(bundle.mesh), domains=domains)


def _tool(test: RuleTest, rule: Rule, contracts: Mapping[str, Tool], ownership: Ownership | None) -> Tool | str:
    """The method that a test calls, or why it is not known."""
    name = f"{test.service}/{test.method}"
    if test.facts is None:
        return contracts.get(name) or (
            f"nothing is known of `{name}`: name the folder of its .proto files with --protos, "
            "or state its facts under `tool`"
        )
    domain = (ownership.owner_of(test.service) if ownership and test.service else None) or domain_of(rule.id)
    facts: dict[str, Untyped] = {"domain": domain, **test.facts}
    return Tool(test.service, test.method, **facts)
