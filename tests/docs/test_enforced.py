"""The page of what is enforced leaves out nothing that can be stated, and names tests that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from docs import enforced
from governance.issuers import Issuer
from governance.policy_file import AppliesEntry, DomainRules, RuleEntry
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.mesh_file import LimitSettings
from tests.docs.reader import REPO

# How threats.md names a test.
NAMED = re.compile(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)")
OPTIONS = (options.Tool, options.Method, options.Field, options.Capability)


def is_there(test: str) -> bool:
    file, name = test.split("::")
    path = REPO / file
    return path.exists() and re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None


def in_page(name: str) -> Iterable[str]:
    return (f"{file}::{test}" for test, file in NAMED.findall((REPO / "docs" / name).read_text()))


def test_every_option_of_a_contract_is_on_the_page() -> None:
    stated = {f"{message.__name__}.{name}" for message in OPTIONS for name in message.DESCRIPTOR.fields_by_name}

    assert stated == {*enforced.OPTIONS}


def test_every_key_of_a_rule_an_issuer_and_the_limits_is_on_the_page() -> None:
    rule = {*RuleEntry.model_fields, *(f"applies.{name}" for name in AppliesEntry.model_fields)} - {"applies"}
    domain = {*DomainRules.model_fields} - {"version", "rules"}

    assert rule | domain == {*enforced.RULES}
    assert {*Issuer.model_fields} == {*enforced.ISSUERS}
    assert {*LimitSettings.model_fields} == {*enforced.LIMITS}


@pytest.mark.parametrize("page", ["enforced.md", "threats.md"])
def test_every_test_that_is_named_is_there(page: str) -> None:
    named = {*in_page(page)}

    assert len(named) > 30
    assert sorted(test for test in named if not is_there(test)) == []


def test_the_page_names_each_test_as_a_link_that_is_looked_after() -> None:
    assert {*enforced.named_tests()} == {*in_page("enforced.md")}
