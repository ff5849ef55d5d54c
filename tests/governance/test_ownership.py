"""The ownership file alone says which domain owns which package."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.ownership import Ownership, is_platform, parse_ownership
from llmesh.document import DocumentError

OWNERS = parse_ownership("owners: {acme: all, acme.support: support, acme.support.legacy: archive}")
LABEL = st.sampled_from(["acme", "support", "supporters", "legacy", "v1", "x"])
PACKAGE = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@pytest.mark.parametrize(
    ("package", "domain"),
    [
        ("acme.support.v1", "support"),
        ("acme.support", "support"),
        ("acme.supporters.v1", "all"),
        ("acme.support.legacy.v1", "archive"),
        ("acme", "all"),
        ("acmex", None),
        ("", None),
        ("support", None),
    ],
)
def test_the_longest_prefix_of_whole_labels_owns_a_package(package: str, domain: str | None) -> None:
    assert OWNERS.domain_of(package) == domain


@given(st.dictionaries(PACKAGE, st.sampled_from(["a", "b", "c"]), max_size=6), PACKAGE)
def test_the_owner_is_that_of_the_longest_prefix(prefixes: dict[str, str], package: str) -> None:
    fitting = [each for each in prefixes if f"{package}.".startswith(f"{each}.")]
    expected = prefixes[max(fitting, key=len)] if fitting else None
    assert Ownership(prefixes).domain_of(package) == expected


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "owners"),
        ("owners: {}", 1, "at least 1 item"),
        ("owners:\n  acme.support: support\nowner: {}", 3, "did you mean `owners`"),
        ("owners:\n  acme.support: support\n  acme.support: other", 3, "given twice"),
        ("owners:\n  acme..support: support", 2, "not a protobuf package"),
        ("owners:\n  acme.support.: support", 2, "not a protobuf package"),
        ("owners:\n  acme.support: Support Team", 2, "cannot be a domain"),
        ("owners:\n  acme.support: [support]", 2, "valid string"),
        ("owners:\n  - acme.support", 1, "valid dictionary"),
        ("owners: [", 1, ""),
        ("owners:\n  a: b\n c: d", 3, ""),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_ownership(text)
    assert caught.value.line == line
    assert says in str(caught.value)


def test_the_platforms_packages_are_known_by_their_first_label() -> None:
    assert is_platform("google.protobuf")
    assert is_platform("llmesh")
    assert not is_platform("googles.v1")
    assert not is_platform("")


def test_the_file_we_ship_is_right() -> None:
    text = (Path(__file__).parents[2] / "governance/policies/ownership.yaml").read_text()
    assert parse_ownership(text).domain_of("acme.engineering.v1") == "engineering"
