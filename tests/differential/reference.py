"""The rules again, from the policy files alone: read as YAML, and valued by the CEL library whole.

It shares nothing with what it is to check: not the reader of bundles, not the
folding, not decide(), not the compiler. So a mistake in any of them shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any as Untyped
from typing import NamedTuple

import yaml
from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - its stubs are inside it

from governance.words import Caller, Tool
from llmesh.api.policy.v1 import facts_pb2
from tests.differential.rules import ADDRESS, EFFECTS, Texts

# A rule, as it stands in a file.
Rule = dict[str, Untyped]
PACKAGE = "llmesh.api.policy.v1"
CALLER = ("issuer", "subject", "roles", "domain", "clearances", "actor")
TOOL = ("service", "method", "domain", "data_classes", "unclassified", "hidden", "needs_approval", "labels")
# What a domain without a file says.
INHERIT = "default: inherit"
NUMBERS = ("effect", "stage", "cost")


class Verdict(NamedTuple):
    """What is to become of a call. rule: that decides; empty where none permits.

    shadows: the shadow rules that hold, and whether the call would be allowed if that one were enforced too.
    """

    allowed: bool
    rule: str
    shadows: tuple[tuple[str, bool], ...]


def verdict(texts: Texts, tool: Tool, caller: Caller) -> Verdict:
    """What the files say of a call from ADDRESS."""
    facts = _environment().Activation(
        {"caller": _caller(caller), "tool": _tool(tool), "context": facts_pb2.Context(address=ADDRESS)}
    )
    file = texts.domains.get(f"domains/{tool.domain}.yaml", INHERIT)
    rules = [*_rules(texts.mesh, "mesh"), *_rules(file, f"domain/{tool.domain}")]
    holding = sorted((rule for rule in rules if _holds(rule, tool, caller, facts)), key=lambda rule: rule["id"])
    enforced = [rule for rule in holding if rule.get("mode") != "shadow"]
    narrowed = _read(file)["default"] == "deny"

    def outcome(rules: Sequence[Rule]) -> tuple[bool, str]:
        """Permitted = a rule of the mesh permits, none forbids, and the domain inherits or one of its own permits."""
        forbids = [rule["id"] for rule in rules if rule["effect"] == "forbid"]
        permits = [rule["id"] for rule in rules if rule["effect"] == "permit"]
        of_mesh = [rule for rule in permits if rule.startswith("mesh/")]
        if forbids:
            return False, forbids[0]
        if not caller.subject or not of_mesh or (narrowed and permits == of_mesh):
            return False, ""
        return True, of_mesh[0]

    shadows = tuple((rule["id"], outcome([*enforced, rule])[0]) for rule in holding if rule not in enforced)
    return Verdict(*outcome(enforced), shadows)


@cache
def _rules(text: str, prefix: str) -> Sequence[Rule]:
    return [{**rule, "id": f"{prefix}/{rule['id']}"} for rule in _read(text).get("rules", [])]


@cache
def _read(text: str) -> dict[str, Untyped]:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _holds(rule: Rule, tool: Tool, caller: Caller, facts: Untyped) -> bool:
    """A forbid without a value forbids, a permit without one does not permit."""
    about = {
        "domains": {tool.domain},
        "services": {tool.service},
        "methods": {tool.method},
        "effects": {EFFECTS[tool.effect - 1]},
        "roles": set(caller.roles),
    }
    if any(about[key].isdisjoint(values) for key, values in rule.get("applies", {}).items()):
        return False
    if "when" not in rule:
        return True
    value = _compiled(rule["when"]).eval(facts)
    return bool(value.value()) if value.type() == cel.Type.BOOL else rule["effect"] == "forbid"


@cache
def _environment() -> Untyped:
    return cel.NewEnv(
        facts_pb2.DESCRIPTOR.pool,
        variables={name.lower(): cel.Type(f"{PACKAGE}.{name}") for name in ("Caller", "Tool", "Context")},
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
