"""A rule, and many of them indexed, so that a tool meets only its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, product

from governance.expression import Expression, fields_of
from governance.words import Caller, Context, Outcome, Tool

# Stands for every domain or method: no domain and no method has this name.
_ANY = ""
# A service, or a domain and a method.
_Key = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Applies:
    """Where a rule applies, known without evaluating anything. An empty set means everywhere.

    roles: of callers who have one of them; the rest are about the tool.
    """

    domains: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    effects: frozenset[int] = frozenset()
    roles: frozenset[str] = frozenset()

    def bears_on(self, tool: Tool) -> bool:
        """Whether the rule can bear on calls of a method."""
        return (
            (not self.domains or tool.domain in self.domains)
            and (not self.services or tool.service in self.services)
            and (not self.methods or tool.method in self.methods)
            and (not self.effects or tool.effect in self.effects)
        )


@dataclass(frozen=True, slots=True)
class Clause:
    """What is left of one rule: an expression over caller and context, never constantly false."""

    rule: str
    reason: str
    when: Expression


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. id: "mesh/reads", "domain/support/pii". permit: else it forbids. shadow: decides nothing, is told.

    clauses: what was made of it, by the values of those facts about a tool that
    `when` reads; None where it can never hold. residue.py keeps it.
    """

    id: str
    permit: bool
    applies: Applies
    when: Expression
    reason: str
    shadow: bool = False
    clauses: dict[tuple[object, ...], Clause | None] = field(
        default_factory=dict[tuple[object, ...], Clause | None], compare=False, repr=False
    )
    reads: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        reads = sorted({found.name for found in fields_of(self.when) if found.root == "tool"})
        object.__setattr__(self, "reads", tuple(reads))


@dataclass(frozen=True)
class Rules:
    """Rules in order of their ids, filed under what they say they apply to.

    What a tool meets costs as much as its own rules, however many others there are.
    """

    rules: tuple[Rule, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def bearing_on(self, tool: Tool) -> Iterator[Rule]:
        """Those that apply to a method, in no order."""
        return (rule for rule in self.filed_for(tool) if rule.applies.bears_on(tool))

    def filed_for(self, tool: Tool) -> Iterator[Rule]:
        """Those that may apply to it: all that is looked at."""
        keys = [tool.service, *product((tool.domain, _ANY), (tool.method, _ANY))]
        return chain.from_iterable(self._filed.get(key, ()) for key in keys)

    @cached_property
    def _filed(self) -> Mapping[_Key, Sequence[Rule]]:
        """Each rule under the services it names, or else under its domains and methods."""
        filed = defaultdict[_Key, list[Rule]](list)
        for rule in self.rules:
            applies = rule.applies
            for key in applies.services or product(applies.domains or (_ANY,), applies.methods or (_ANY,)):
                filed[key].append(rule)
        return filed


@dataclass(frozen=True, slots=True)
class RuleTest:
    """What is to become of a call, by those who wrote the rule.

    service, method: of the call; empty if the test states facts alone. facts:
    what it states of the tool, as fields of words.Tool; None where it leaves all
    to the tool's contract. decides: id of the rule that decides; empty if any may.
    """

    caller: Caller
    context: Context
    service: str
    method: str
    facts: Mapping[str, object] | None
    expect: Outcome
    decides: str
