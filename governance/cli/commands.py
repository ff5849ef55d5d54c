"""`llmesh policy`: policy files checked, tested, explained and compared, with no mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from governance.check import check as check_rules
from governance.cli.inputs import (
    Policies,
    method_path,
    read_caller,
    read_calls,
    read_contracts,
    read_mesh,
    read_policies,
)
from governance.cli.outputs import caller_json, change_json, print_changes, print_findings, print_said, trial_json
from governance.decide import decide
from governance.diff import compare
from governance.explain import explain as explain_call
from governance.explain import show as show_method
from governance.residue import specialise
from governance.trial import run_tests
from governance.words import Context, Outcome, Tool
from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import console, print_json
from llmesh.cli.session import open_session
from llmesh.problem import Problem

POLICIES = Path("governance/policies")

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder of mesh.yaml and domains/.")]
FolderOption = Annotated[Path, typer.Option("--policies", metavar="DIR", help="The folder of mesh.yaml and domains/.")]
ProtosOption = Annotated[
    list[Path] | None,
    typer.Option("--protos", metavar="DIR", help="A folder of .proto files, to know tools by. Repeatable."),
]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="The method, e.g. acme.support.v1.Tickets/GetTicket.")]

policy = typer.Typer(no_args_is_help=True, help="Check, try, explain and compare rules.")


@policy.command()
def check(folder: Folder = POLICIES, *, protos: ProtosOption = None, json: JsonOption = False) -> None:
    """Say what is wrong with policy files: what cannot be read, and rules that are untested, failing or needless.

    Exit code 0: nothing. 1: something.
    """
    policies = read_policies(folder)
    contracts = read_contracts(protos or [], policies)
    trials = list(run_tests(policies.bundle, contracts, policies.ownership))
    found = list(check_rules(policies.bundle, trials, contracts, policies.ownership))
    wrong = [each for each in found if each.fails]
    if json:
        print_json({"findings": [asdict(each) for each in found], "tests": len(trials)})
    else:
        print_findings(console(), found)
        console().print(f"{len(policies.bundle.tests)} rules, {len(trials)} tests: {len(wrong)} to mend")
    if wrong:
        raise typer.Exit(1)


@policy.command("test")
def run_rule_tests(folder: Folder = POLICIES, *, protos: ProtosOption = None, json: JsonOption = False) -> None:
    """Run the tests beside the rules.

    Exit code 0: all passed. 1: one did not, or there is none.
    """
    policies = read_policies(folder)
    trials = list(run_tests(policies.bundle, read_contracts(protos or [], policies), policies.ownership))
    failed = [trial for trial in trials if trial.fault]
    if json:
        print_json({"passed": len(trials) - len(failed), "failed": [trial_json(trial) for trial in failed]})
    else:
        out = console()
        for trial in failed:
            out.print(f"{trial.rule}, test {trial.number}: {trial.fault}", markup=False)
        out.print(f"{len(trials) - len(failed)} passed, {len(failed)} failed")
    if failed or not trials:
        raise typer.Exit(1)


@policy.command()
def show(
    method: Method,
    *,
    folder: FolderOption = POLICIES,
    protos: ProtosOption = None,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Show what the rules leave for a method, and where each part is enforced. Without --protos, the mesh is asked."""
    policies = read_policies(folder)
    tool = _tool(method, _tools([method], policies, protos, home=home, address=address, name=name))
    said = show_method(policies.bundle, tool)
    domain = policies.bundle.domains.get(tool.domain)
    if json:
        print_json(
            {
                "method": method,
                "domain": tool.domain,
                "default": "inherit" if domain is None or domain.inherit else "deny",
                "rules": [asdict(each) for each in said],
            }
        )
        return
    print_said(console(), said, asked=False)
    if domain is not None and not domain.inherit:
        console().print(f"the domain {tool.domain} denies what none of its own rules permits")


@policy.command()
def explain(
    method: Method,
    *,
    who: Annotated[
        str, typer.Option("--caller", metavar="FILE|TOKEN", help="Who calls: a file as in rules' tests, or a token.")
    ],
    origin: Annotated[str, typer.Option("--from", metavar="IP", help="The address that the call comes from.")] = "",
    folder: FolderOption = POLICIES,
    protos: ProtosOption = None,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Say what every rule says of a call, and what becomes of it. A token is read, not verified.

    Exit code 0: it is allowed. 1: it is denied.
    """
    policies = read_policies(folder)
    caller, context = read_caller(who, folder), Context(origin)
    tool = _tool(method, _tools([method], policies, protos, home=home, address=address, name=name))
    said = explain_call(policies.bundle, tool, caller, context)
    decision = decide(specialise(policies.bundle, tool), caller, context)
    if json:
        print_json(
            {
                "caller": caller_json(caller),
                "outcome": decision.outcome.value,
                "rule": decision.rule,
                "reason": decision.reason,
                "rules": [asdict(each) for each in said],
            }
        )
    else:
        print_said(console(), said, asked=True)
        by = f" by {decision.rule}" if decision.rule else ""
        console().print(f"{decision.outcome.value}{by}: {decision.reason}", markup=False)
    if decision.outcome is Outcome.DENY:
        raise typer.Exit(1)


@policy.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A folder of policy files.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another.")],
    *,
    records: Annotated[
        Path, typer.Option("--records", metavar="FILE", help="What `llmesh audit --json` prints; - for stdin.")
    ],
    protos: ProtosOption = None,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Say which recorded calls would end otherwise by other rules. Without --protos, the mesh is asked of its tools.

    Exit code 0: none would. 1: some would.
    """
    before, after = read_policies(old), read_policies(new)
    calls = read_calls(records)
    methods = sorted({call.method for call in calls})
    tools = _tools(methods, after, protos, home=home, address=address, name=name)
    found = compare(before.bundle, after.bundle, calls, tools)
    changes = sorted(found.changes.items(), key=lambda item: (-item[1], item[0].method, item[0].caller.subject))
    if json:
        print_json(
            {
                "changes": [change_json(change, count) for change, count in changes],
                "same": found.same,
                "unknown": dict(found.unknown),
            }
        )
    else:
        print_changes(console(), changes)
        out = console()
        out.print(f"{sum(found.changes.values())} calls would change, {found.same} would not")
        for why, count in found.unknown.items():
            out.print(f"{count} unknown: {why}")
    if changes:
        raise typer.Exit(1)


def _tools(
    methods: list[str], policies: Policies, protos: list[Path] | None, *, home: Path | None, address: str, name: str
) -> Mapping[str, Tool]:
    """What is known of methods, by folders of .proto files or else by the mesh."""
    if protos:
        return read_contracts(protos, policies)
    return read_mesh(methods, policies, open_session(home, address, name=name)) if methods else {}


def _tool(method: str, known: Mapping[str, Tool]) -> Tool:
    path = method_path(method)
    if path not in known:
        raise Problem(
            f"nothing is known of `{path}`", "name the folder of its .proto files (--protos), or see: llmesh tools list"
        )
    return known[path]
