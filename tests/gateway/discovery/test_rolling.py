"""Admission change by change gives what admission of everything at once gives."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Endpoint
from gateway.discovery.admit import Sighting, admit
from gateway.discovery.compatible import extends
from gateway.discovery.rolling import RollingAdmission
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.descriptors import link
from governance.ownership import parse_ownership
from tests.gateway.discovery.world import OWNERSHIP, add_message, contract

OWNERS = (
    parse_ownership(OWNERSHIP),
    parse_ownership(OWNERSHIP.replace("acme.handbook: handbook", "acme.books: books")),
)
ADDRESSES = ("unix:/a", "unix:/b", "unix:/c")


def shared(*fields: str) -> FileDescriptorProto:
    """Types of the handbook's that support uses, too."""
    file = FileDescriptorProto(name="acme/handbook/v1/types.proto", package="acme.handbook.v1", syntax="proto3")
    add_message(file, "Page", fields)
    return file


@cache
def candidates() -> tuple[Candidate, ...]:
    """Two services in two forms each, two that share a type, told alike or not, and one that nobody owns."""
    page = "acme/handbook/v1/types.proto"
    made = [
        (contract(),),
        (contract(fields=("id", "other")),),
        (contract(service="Queues"),),
        (contract("acme.handbook.v1", "Pages", imports=[page]), shared("id")),
        (contract("acme.support.v2", "Borrowed", imports=[page]), shared("id")),
        (contract("acme.support.v2", "Borrowed", imports=[page]), shared("id", "forged")),
        (contract("acme.supporters.v1"),),
    ]
    found: list[Candidate] = []
    for files in made:
        service = f"{files[0].package}.{files[0].service[0].name}"
        found.append(read_candidate(service, link(service, files).contract, grant=None))
    return tuple(found)


# For each step: address -> the candidates that it shows now; and whose ownership is in force.
SHOWN = st.frozensets(st.integers(0, 6), max_size=4)
STEPS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(ADDRESSES), SHOWN, max_size=2), st.booleans()), min_size=1, max_size=6
)


def sighting(address: str, shown: frozenset[int], order: int) -> Sighting:
    # An endpoint shows a service in one form.
    one_each = {candidates()[number].service: candidates()[number] for number in sorted(shown)}
    return Sighting(Endpoint(address, "test"), order, tuple(one_each.values()))


@given(steps=STEPS)
def test_what_is_admitted_change_by_change_is_what_would_be_admitted_at_once(
    steps: list[tuple[dict[str, frozenset[int]], bool]],
) -> None:
    rolling = RollingAdmission()
    seen: dict[str, Sighting] = {}
    incumbents: dict[str, tuple[str, ...]] = {}
    for order, (changes, other_owners) in enumerate(steps):
        for address, shown in changes.items():
            if shown:
                seen[address] = sighting(address, shown, order * len(ADDRESSES) + ADDRESSES.index(address))
            else:
                seen.pop(address, None)
        owners = OWNERS[other_owners]
        whole = admit(seen.values(), ownership=owners, incumbents=incumbents, extends=extends)

        before = dict(rolling.tools)
        touched = rolling.admit(seen.values(), ownership=owners, incumbents=incumbents, extends=extends)

        assert rolling.steps == whole.steps
        told = {name: (each.domain, each.versions, _shows(each.shows)) for name, each in rolling.tools.items()}
        assert told == {name: (each.domain, each.versions, _shows(each.shows)) for name, each in whole.tools.items()}
        untouched = rolling.tools.keys() - touched
        assert untouched == before.keys() - touched
        assert all(rolling.tools[name] is before[name] for name in untouched)
        incumbents = {name: each.versions for name, each in whole.tools.items()}


def _shows(shows: tuple[tuple[Candidate, tuple[Sighting, ...]], ...]) -> list[tuple[str, list[str]]]:
    return [(each.version, [sighting.endpoint.address for sighting in sightings]) for each, sightings in shows]


def test_a_change_touches_nobody_who_shares_nothing_with_it() -> None:
    rolling = RollingAdmission()
    tickets, queues = candidates()[0], candidates()[2]
    first = Sighting(Endpoint("unix:/a", "test"), 0, (tickets,))

    def admitted(*sightings: Sighting) -> set[str]:
        return rolling.admit(sightings, ownership=OWNERS[0], incumbents={}, extends=extends)

    assert admitted(first) == {tickets.service}
    assert admitted(first, Sighting(Endpoint("unix:/b", "test"), 1, (queues,))) == {queues.service}
    assert admitted(first) == {queues.service}
    assert admitted(first) == set()
