"""Whatever comes as a contract is admitted or refused, and what is admitted Envoy takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Catalog, Endpoint, Step, Tool
from gateway.discovery.admit import Sighting
from gateway.discovery.judge import Judge, View
from gateway.reading.candidate import Candidate, ContractReader
from gateway.reading.descriptors import link
from gateway.reading.reflect import is_full_name, parse_file
from gateway.reading.refusal import Refusal
from gateway.snapshot.build import build_tool, residues
from governance.ownership import parse_ownership
from tests.envoy import mesh, policy_of
from tests.gateway.discovery.mutations import tampered, whole_contract
from tests.gateway.discovery.world import OWNERSHIP

OWNERS = parse_ownership(OWNERSHIP)
POLICY = policy_of()
UPPER_SNAKE = re.compile(r"[A-Z][A-Z_]*")
# The same each time: a build fails for what changed in it.
BOUNDED = settings(max_examples=500, derandomize=True, database=None)
ENVOY_TAKES_MAX = 40


def read(contents: Iterable[bytes]) -> Iterator[Candidate | Step]:
    """The services of the files, each as a candidate or the step at which it fails."""
    try:
        files = [parse_file(content) for content in contents]
    except Refusal as refusal:
        yield refusal.step("reflect")
        return
    names = [f"{file.package}.{service.name}" for file in files for service in file.service]
    for name in dict.fromkeys(filter(is_full_name, names)):
        try:
            linked = link(name, files)
            yield ContractReader(linked.contract, linked.pool).read(name, grant=None)
        except Refusal as refusal:
            yield refusal.step("link", name)


def admitted(contents: Iterable[bytes]) -> tuple[list[Tool], list[Step]]:
    """The tools that are admitted, and the steps at which the others fail."""
    seen = list(read(contents))
    candidates = tuple(each for each in seen if isinstance(each, Candidate))
    endpoint = Endpoint("unix:/tool.sock", "test")
    sighting = Sighting(endpoint, 0, candidates, tuple(each for each in seen if isinstance(each, Step)))
    catalog = Judge().judge([View(endpoint, sighting, None)], Catalog(), ownership=OWNERS, now_s=0)
    failed = [step for step in catalog.reports[endpoint.address].steps if not step.passed]
    assert len(catalog.tools) + len({step.service for step in failed}) >= len({*candidates_of(seen)})
    return list(catalog.tools.values()), failed


def candidates_of(seen: Iterable[Candidate | Step]) -> Iterator[str]:
    return (each.service for each in seen)


def check(contents: Iterable[bytes]) -> list[Tool]:
    tools, failed = admitted(contents)
    for step in failed:
        assert UPPER_SNAKE.fullmatch(step.reason)
        assert step.message.isprintable()
    for tool in tools:
        build_tool(tool, residues(tool, POLICY.bundle))
    return tools


def test_the_contract_that_is_tampered_with_is_admitted_as_it_was() -> None:
    tools, failed = admitted([whole_contract().SerializeToString(), other()])
    assert ([tool.service for tool in tools], failed) == (["acme.support.v1.Tickets"], [])


def other() -> bytes:
    return FileDescriptorProto(name="other.proto", package="acme.support.v1", syntax="proto3").SerializeToString()


@BOUNDED
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_bytes_are_admitted_or_refused(contents: list[bytes]) -> None:
    check(contents)


async def test_descriptors_are_admitted_or_refused_and_envoy_takes_what_is_admitted() -> None:
    found: list[Tool] = []

    @BOUNDED
    @given(tampered())
    def explore(contents: list[bytes]) -> None:
        found.extend(check(contents))

    explore()
    distinct = list({tool.contract.digest: tool for tool in found}.values())[:ENVOY_TAKES_MAX]
    assert len(distinct) > 10  # or there is nothing to try
    async with mesh() as running:
        served = [
            replace(tool, service=f"acme.support.v1.T{number}", endpoints=(Endpoint(running.backend.address, "file"),))
            for number, tool in enumerate(distinct)
        ]
        await running.publish(*served)
        assert running.refused == []
