from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.bundle import Bundle, parse_bundle
from governance.edit import edit
from governance.residue import specialise
from governance.words import Tool
from tests.governance.expressions import tools
from tests.governance.rules import READ, domain, mesh, rule

APPLIES = ("", "{effects: [read]}", "{services: [acme.support.v1.Tickets]}", "{methods: [Get]}", "{domains: [support]}")
bodies = st.lists(
    st.tuples(
        st.sampled_from(["permit", "forbid"]),
        st.sampled_from(["", "caller.domain == 'support'", "tool.hidden"]),
        st.sampled_from(APPLIES),
        st.sampled_from(["", "shadow"]),
    ),
    max_size=4,
)
files = st.none() | st.tuples(st.sampled_from(["inherit", "deny"]), bodies)
bundles = st.tuples(bodies, files)
READS = rule("reads", "permit", applies="{effects: [read]}")
CLOSED = rule("closed", "forbid", applies="{services: [acme.support.v1.Tickets]}")


def bundle_of(
    drawn: tuple[list[tuple[str, str, str, str]], tuple[str, list[tuple[str, str, str, str]]] | None],
) -> Bundle:
    def rules(body: list[tuple[str, str, str, str]]) -> list[str]:
        return [rule(f"r{number}", *each) for number, each in enumerate(body)]

    body, file = drawn
    return parse_bundle(mesh(*rules(body)), domain("support", *rules(file[1]), default=file[0]) if file else {})


@given(bundles, bundles, tools, st.sampled_from(["support", "sales"]))
@settings(max_examples=300, deadline=None)
def test_what_an_edit_does_not_bear_on_keeps_its_residue(
    before: Untyped, after: Untyped, tool: Tool, owner: str
) -> None:
    tool = replace(tool, domain=owner)
    old, new = bundle_of(before), bundle_of(after)

    if not edit(old, new).bears_on(tool):
        assert specialise(old, tool) == specialise(new, tool)


@pytest.mark.parametrize(
    ("rules", "domains", "tool", "bears"),
    [
        (mesh(READS, CLOSED), {}, READ, True),
        (mesh(READS, CLOSED), {}, replace(READ, service="acme.support.v1.Other"), False),
        (mesh(READS), domain("support", default="deny"), READ, True),
        (mesh(READS), domain("support", default="deny"), replace(READ, domain="sales"), False),
        (mesh(READS), domain("sales", CLOSED), READ, False),
        (mesh(READS), {}, READ, False),
    ],
    ids=["its rule", "another tool's rule", "its domain", "another domain", "another domain's rule", "nothing"],
)
def test_an_edit_bears_on_the_tools_that_it_is_about(
    rules: str,
    domains: Mapping[str, str],
    tool: Tool,
    bears: bool,  # noqa: FBT001 - a case's outcome
) -> None:
    # One after the other: what is the same in both is the same object.
    before, after = parse_bundle(mesh(READS), {}), parse_bundle(rules, domains)

    assert edit(before, after).bears_on(tool) is bears
