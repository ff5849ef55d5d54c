"""The rules again, from the policy files alone: read as YAML, and valued by the CEL library whole.

It shares nothing with what it is to check: not the reader of bundles, not the
folding, not decide(), not the compiler. So a mistake in any of them shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any as Untyped
from typing import NamedTuple

import yaml
from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - its stubs are inside it

from governance.words import Caller, Tool
from llmesh.api.policy.v1 import facts_pb2
from tests.differential.rules import EFFECTS, Texts

PACKAGE = "llmesh.api.policy.v1"
CALLER = ("issuer", "subject", "roles", "domain", "clearances", "actor")
TOOL = ("service", "method", "domain", "data_classes", "unclassified", "hidden", "needs_approval", "labels")
# What a domain without a file says.
INHERIT = "default: inherit"
NUMBERS = ("effect", "stage", "cost")


class Verdict(NamedTuple):
    """What is to become of a call. rule: that decides; empty where none permits."""

    allowed: bool
    rule: str


def verdict(texts: Texts, tool: Tool, caller: Caller) -> Verdict:
    """What the files say of a call.

    Permitted = a rule of the mesh permits, and none forbids, and none of the
    tool's domain forbids, and the domain inherits or one of its rules permits.
    A forbid without a value forbids, a permit without one does not permit.
    """
    facts = _environment().Activation({"caller": _caller(caller), "tool": _tool(tool)})
    mesh = _rules(texts.mesh, "mesh")
    file = texts.domains.get(f"domains/{tool.domain}.yaml", INHERIT)
    own = _rules(file, f"domain/{tool.domain}")
    forbid = _first([*mesh, *own], "forbid", tool, facts)
    if forbid:
        return Verdict(allowed=False, rule=forbid)
    permit = _first(mesh, "permit", tool, facts)
    narrowed = _read(file)["default"] == "deny"
    if not caller.subject or not permit or (narrowed and not _first(own, "permit", tool, facts)):
        return Verdict(allowed=False, rule="")
    return Verdict(allowed=True, rule=permit)


@cache
def _rules(text: str, prefix: str) -> Sequence[dict[str, Untyped]]:
    return [{**rule, "id": f"{prefix}/{rule['id']}"} for rule in _read(text).get("rules", [])]


@cache
def _read(text: str) -> dict[str, Untyped]:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _first(rules: Iterable[dict[str, Untyped]], effect: str, tool: Tool, facts: Untyped) -> str:
    """The id of the first rule of an effect that holds; empty if none does."""
    holding = (rule["id"] for rule in rules if rule["effect"] == effect and _holds(rule, tool, facts))
    return min(holding, default="")


def _holds(rule: dict[str, Untyped], tool: Tool, facts: Untyped) -> bool:
    about = {
        "domains": tool.domain,
        "services": tool.service,
        "methods": tool.method,
        "effects": EFFECTS[tool.effect - 1],
    }
    if any(about[key] not in values for key, values in rule.get("applies", {}).items()):
        return False
    if "when" not in rule:
        return True
    value = _compiled(rule["when"]).eval(facts)
    return bool(value.value()) if value.type() == cel.Type.BOOL else rule["effect"] == "forbid"


@cache
def _environment() -> Untyped:
    return cel.NewEnv(
        facts_pb2.DESCRIPTOR.pool,
        variables={"caller": cel.Type(f"{PACKAGE}.Caller"), "tool": cel.Type(f"{PACKAGE}.Tool")},
        container="llmesh.api.options.v1",
    )


@cache
def _compiled(text: str) -> Untyped:
    return _environment().compile(text)


@cache
def _caller(caller: Caller) -> facts_pb2.Caller:
    return facts_pb2.Caller(**{name: getattr(caller, name) for name in CALLER})


def _tool(tool: Tool) -> facts_pb2.Tool:
    known = facts_pb2.Tool(**{name: getattr(tool, name) for name in TOOL})
    for name in NUMBERS:
        setattr(known, name, getattr(tool, name))
    return known
