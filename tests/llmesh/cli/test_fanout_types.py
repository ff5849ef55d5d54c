"""Which type is meant by a name that a person writes."""

from __future__ import annotations

import pytest

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.cli.fanout_types import takers_of
from llmesh.problem import Problem

# The one whose name has the other's as its end comes first.
TOOLS = [
    pb.Tool(service="a.Longer", methods=[pb.Method(name="Ask", request_type="x.a.v1.Query")]),
    pb.Tool(service="b.Exact", methods=[pb.Method(name="Ask", request_type="a.v1.Query")]),
    pb.Tool(service="c.Other", methods=[pb.Method(name="Ask", request_type="c.v1.Other")]),
]


def services(name: str) -> list[str]:
    return [service for service, _ in takers_of(TOOLS, name)]


@pytest.mark.parametrize("name", ["a.v1.Query", ".a.v1.Query"])
def test_the_full_name_of_a_type_is_that_one_though_others_end_with_it(name: str) -> None:
    assert services(name) == ["b.Exact"]


def test_the_end_of_a_name_is_the_one_type_that_has_it() -> None:
    assert services("Other") == ["c.Other"]
    assert services("x.a.v1.Query") == ["a.Longer"]


def test_the_end_of_several_names_is_none_of_them() -> None:
    with pytest.raises(Problem, match=r"`a\.v1\.Query`, `x\.a\.v1\.Query`"):
        takers_of(TOOLS, "Query")


@pytest.mark.parametrize("name", ["uery", "d.v1.Query", ""])
def test_what_is_no_name_of_a_type_is_refused(name: str) -> None:
    with pytest.raises(Problem, match="no method that you may know of takes"):
        takers_of(TOOLS, name)


@pytest.mark.parametrize("name", ["other", "c.v1.Othr"])
def test_what_may_have_been_meant_is_named(name: str) -> None:
    with pytest.raises(Problem, match=r"takes `.*` \(nearest: `c\.v1\.Other`\)"):
        takers_of(TOOLS, name)
