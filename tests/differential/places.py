"""Tools by chance: each method of each is a place where callers meet the rules of its own policy files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from types import MappingProxyType
from typing import Any as Untyped

from gateway import catalog
from governance.residue import Residue, specialise
from governance.words import Tool
from llmesh.api.options.v1 import options_pb2 as options
from tests.differential.rules import (
    APPLYING,
    DATA_CLASSES,
    DOMAINS,
    LABELS,
    METHODS,
    Texts,
    alone,
    applying,
    domain_files,
    mesh_file,
    narrowing,
)
from tests.envoy import method_of, tool_of

SILVER = MappingProxyType({"tier": "silver"})
TOOLS_OF_A_GROUP = ("One", "Two")


@dataclass(frozen=True, eq=False)
class Place:
    """A method under the policy of its group. tool: what rules are to see of it, told here and not by the gateway."""

    texts: Texts
    tool: Tool

    @cached_property
    def residue(self) -> Residue:
        """What is left of the policy here."""
        return specialise(self.texts.bundle, self.tool)


@dataclass(frozen=True, eq=False)
class Group:
    """Policy files, and the tools that they alone govern."""

    texts: Texts
    tools: tuple[tuple[Tool, ...], ...]

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every method."""
        return tuple(Place(self.texts, method) for methods in self.tools for method in methods)

    def served(self, address: str) -> Iterator[catalog.Tool]:
        """The tools as the gateway's catalog has them."""
        for methods in self.tools:
            yield _served(methods, address)

    def under(self, texts: Texts) -> Group:
        """The same tools under other files."""
        return Group(texts, self.tools)


def everybody() -> Group:
    """A tool for all who are somebody: it shows what each caller is."""
    texts = Texts("version: 1\nrules: [{id: all, effect: permit, reason: all may}]\n")
    return Group(texts, ((Tool("acme.open.v1.Mirror", "Get", "open", effect=options.EFFECT_READ),),))


def chosen() -> Iterator[Group]:
    """A tool for each of the policies that are always there."""
    for index, texts in enumerate((*alone(), *narrowing())):
        yield _both(f"acme.chosen.v1.T{index}", texts)
    for index, where in enumerate(APPLYING):
        service = f"acme.applied.v1.T{index}"
        yield _both(service, applying(where.format(service=service)))


def _both(service: str, texts: Texts) -> Group:
    """A tool of which one method leaves unset all it can, and the other nothing."""
    known: dict[str, Untyped] = {"effect": options.EFFECT_READ, "cost": options.COST_LOW, "unclassified": False}
    return Group(
        texts,
        (
            (
                Tool(service, "Get", "support", labels=SILVER, data_classes=("pii",), **known),
                Tool(service, "Put", "support", labels=SILVER, needs_approval=True),
            ),
        ),
    )


def group_of(seed: Random, index: int) -> Group:
    """A group by chance. index: makes its names its own."""
    services = [f"acme.g{index}.v1.{name}" for name in TOOLS_OF_A_GROUP]
    texts = Texts(mesh_file(seed, services), domain_files(seed, services))
    return Group(texts, tuple(_methods(seed, service) for service in services))


def _methods(seed: Random, service: str) -> tuple[Tool, ...]:
    """A tool's methods. Of what a contract may leave unset, some is."""
    facts: dict[str, Untyped] = {
        "domain": seed.choice(DOMAINS),
        "stage": seed.choice([1, 2, 3]),
        "hidden": seed.random() < 0.15,
        "labels": MappingProxyType({key: seed.choice(values) for key, values in LABELS.items() if seed.random() < 0.5}),
    }
    return tuple(
        Tool(
            service,
            method,
            effect=seed.choice([1, 1, 2, 3]),
            data_classes=tuple(sorted(seed.sample(DATA_CLASSES, seed.randint(0, 2)))),
            unclassified=seed.random() < 0.3,
            needs_approval=seed.random() < 0.3,
            cost=seed.choice([1, 2, 3]),
            **facts,
        )
        for method in sorted(seed.sample(METHODS, 2))
    )


def _served(methods: Sequence[Tool], address: str) -> catalog.Tool:
    """What is the most restrictive is left unset: the gateway is to read it so."""
    first = methods[0]
    lifecycle = options.Lifecycle(stage=_or_unset(first.stage, options.STAGE_EXPERIMENTAL))  # pyright: ignore[reportArgumentType]
    made = [
        method_of(
            method.method,
            method.effect,
            data_classes=method.data_classes,
            unclassified=method.unclassified,
            options=options.Method(
                needs_approval=method.needs_approval,
                cost=_or_unset(method.cost, options.COST_HIGH),  # pyright: ignore[reportArgumentType]
            ),
        )
        for method in methods
    ]
    return tool_of(
        first.service,
        address,
        *made,
        domain=first.domain,
        lifecycle=lifecycle,
        hidden=first.hidden,
        labels=_plain(first.labels),
    )


def _or_unset(value: int, unset: int) -> int:
    return 0 if value == unset else value


def _plain(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(labels)
