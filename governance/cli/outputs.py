"""How `llmesh policy` says what it found: tables for people, values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from governance.check import Finding
from governance.diff import Change
from governance.explain import Said
from governance.trial import Trial
from governance.words import Caller
from llmesh.cli.show import table


def print_findings(out: Console, findings: Sequence[Finding]) -> None:
    """One row each."""
    if not findings:
        return
    rows = table("rule", "", "what")
    for each in findings:
        colour = "red" if each.fails else "yellow"
        rows.add_row(escape(each.rule), f"[{colour}]{each.kind}[/]", escape(each.text))
    out.print(rows)


def print_said(out: Console, said: Sequence[Said], *, asked: bool) -> None:
    """One row a rule. asked: about one call."""
    rows = (
        table("rule", "effect", "holds", "condition that is left")
        if asked
        else table("rule", "effect", "enforced", "condition that is left")
    )
    for each in said:
        effect = each.effect if each.mode == "enforce" else f"{each.effect} (shadow)"
        value = ("[green]yes[/]" if each.holds else "no") if asked else each.enforced
        rows.add_row(escape(each.rule), effect, value, escape(each.left or "none: it never bears on this method"))
    out.print(rows)


def print_changes(out: Console, changes: Sequence[tuple[Change, int]]) -> None:
    """One row a caller and method."""
    if not changes:
        return
    rows = table("calls", "caller", "method", "now", "then")
    for change, count in changes:
        now, then = (
            f"{outcome.value} ({rule or 'no rule permits'})"
            for outcome, rule in zip((change.before, change.after), change.rules, strict=True)
        )
        caller = f"{change.caller.issuer}/{change.caller.subject}"
        rows.add_row(str(count), escape(caller), change.method, now, then)
    out.print(rows)


def change_json(change: Change, calls: int) -> dict[str, object]:
    """One caller and method."""
    return {
        "caller": caller_json(change.caller),
        "method": change.method,
        "before": {"outcome": change.before.value, "rule": change.rules[0]},
        "after": {"outcome": change.after.value, "rule": change.rules[1]},
        "calls": calls,
    }


def caller_json(caller: Caller) -> dict[str, object]:
    """Who calls."""
    return asdict(caller)


def trial_json(trial: Trial) -> dict[str, object]:
    """One test."""
    return {"rule": trial.rule, "test": trial.number, "fault": trial.fault}
