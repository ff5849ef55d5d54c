"""Policy files and callers for tests, made in a line."""

from __future__ import annotations

from pathlib import Path

from governance.bundle import Bundle, parse_bundle
from governance.words import Caller, Tool
from llmesh.api.options.v1 import options_pb2 as options

POLICIES = Path(__file__).parents[2] / "governance" / "policies"

READ = Tool("acme.support.v1.Tickets", "Get", "support", effect=options.EFFECT_READ)
SAM = Caller("dev", "sam", ("editor",), "support")


def rule(name: str, effect: str, when: str = "", applies: str = "", mode: str = "") -> str:
    """One rule in YAML, its reason "because NAME"."""
    lines = [f"- id: {name}", f"  effect: {effect}", f"  reason: because {name}"]
    lines += [f"  applies: {applies}"] if applies else []
    lines += [f"  mode: {mode}"] if mode else []
    lines += ["  when: >-", f"    {when}"] if when else []
    return "\n".join(lines)


def mesh(*rules: str) -> str:
    """A mesh.yaml of these rules."""
    return "\n".join(["version: 1", "rules:", *rules]) if rules else "version: 1"


def domain(name: str, *rules: str, default: str = "inherit") -> dict[str, str]:
    """A domain's file of these rules, by its name."""
    head = ["version: 1", f"domain: {name}", f"default: {default}"]
    text = "\n".join([*head, "rules:", *rules] if rules else head)
    return {f"domains/{name}.yaml": text}


def shipped() -> Bundle:
    """The bundle in governance/policies."""
    files = {f"domains/{path.name}": path.read_text() for path in POLICIES.glob("domains/*.yaml")}
    return parse_bundle((POLICIES / "mesh.yaml").read_text(), files)
