"""`llmesh login`, `llmesh token`: callers of the development issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli.options import AsOption, HomeOption, JsonOption
from llmesh.cli.output import print_json, say

if TYPE_CHECKING:
    from llmesh.identity import DevCaller


def login(
    *,
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Who to be. Without it: show who is signed in.")
    ] = "",
    role: Annotated[list[str] | None, typer.Option("--role", help="A role, e.g. support.editor. Repeatable.")] = None,
    domain: Annotated[str, typer.Option("--domain", help="The domain they work in.")] = "",
    clearance: Annotated[
        list[str] | None, typer.Option("--clearance", help="A class of data they may see, e.g. pii. Repeatable.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Sign somebody in with the development issuer; later commands are theirs.

    Works only with a mesh on this machine: `llmesh login --as ana --role editor --domain support`.
    """
    from llmesh.home import Home
    from llmesh.identity import DevCaller, DevIssuer, Logins

    found = Home.find(home)
    logins = Logins.load(found)
    described = bool(role or domain or clearance)
    if name and (described or name not in logins.callers):
        caller = DevCaller(name, tuple(role or ()), domain, tuple(clearance or ()))
        caller.check()
    else:
        caller = logins.get(name)
    if name:
        found.create()
        DevIssuer.open(found)
        logins.signed_in(caller).save(found)
    _show(caller, json=json)


def _show(caller: DevCaller, *, json: bool) -> None:
    """Say who is signed in."""
    facts = {"name": caller.name, "roles": caller.roles, "domain": caller.domain, "clearances": caller.clearances}
    if json:
        print_json(facts)
        return
    say(
        f"signed in as [bold]{caller.name}[/] "
        f"(roles {', '.join(caller.roles) or 'none'}; domain {caller.domain or 'none'}; "
        f"clearances {', '.join(caller.clearances) or 'none'})"
    )


def token(
    *,
    name: AsOption = "",
    lifetime_s: Annotated[int, typer.Option("--lifetime", min=1, max=12 * 3600, help="Seconds until it ends.")] = 3600,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Print a fresh token, to be sent as `authorization: Bearer TOKEN`."""
    from llmesh.home import Home
    from llmesh.identity import DevIssuer, Logins

    found = Home.find(home)
    caller = Logins.load(found).get(name)
    minted = DevIssuer.open(found).mint(caller, lifetime_s=lifetime_s)
    if json:
        print_json({"token": minted, "subject": caller.name, "lifetime_s": lifetime_s})
    else:
        typer.echo(minted)
