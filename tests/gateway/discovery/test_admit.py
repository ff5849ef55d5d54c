"""What is admitted follows from everything seen, and from nothing else but who was admitted before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Endpoint, Grant, Step
from gateway.discovery.admit import Admission, Sighting, admit
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.descriptors import link
from gateway.reading.pinned import pinned
from governance.ownership import parse_ownership
from llmesh.api.model.v1 import model_pb2
from tests.gateway.discovery.world import OWNERSHIP, add_message, contract

OWNERS = parse_ownership(OWNERSHIP)
TICKETS = "acme.support.v1.Tickets"
PAGES = "acme.handbook.v1.Pages"


def candidate(file: FileDescriptorProto, *others: FileDescriptorProto, grant: Grant | None = None) -> Candidate:
    service = f"{file.package}.{file.service[0].name}"
    linked = link(service, [file, *others])
    return read_candidate(service, linked.contract, grant=grant)


def seen(address: str, *candidates: Candidate, order: int = 0) -> Sighting:
    return Sighting(Endpoint(address, "test"), order, candidates)


def judge(*sightings: Sighting, incumbents: Mapping[str, tuple[str, ...]] | None = None) -> Admission:
    return admit(sightings, ownership=OWNERS, incumbents=incumbents or {})


def failure(admission: Admission, address: str, service: str) -> Step | None:
    steps = admission.steps[address, service]
    assert all(step.passed for step in steps[:-1])
    return None if steps[-1].passed else steps[-1]


def addresses(admission: Admission, service: str) -> list[str]:
    return [each.endpoint.address for each in admission.tools[service].sightings]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (contract("acme.supporters.v1", domain="support"), "NO_OWNER"),
        (contract(domain="handbook"), "DOMAIN_MISMATCH"),
        (contract("google.evil.v1", domain="support"), "PLATFORM_PACKAGE"),
        (contract("grpc.v1", domain="support"), "PLATFORM_PACKAGE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_may_serve_a_package_is_what_the_ownership_says(file: FileDescriptorProto, reason: str) -> None:
    asked = candidate(file)
    step = failure(judge(seen("a", asked)), "a", asked.service)
    assert step is not None
    assert (step.name, step.reason) == ("own", reason)
    assert step.message


MODELS = "llmesh.api.model.v1.ModelService"
NAMES_MODELS = parse_ownership("owners: {llmesh: platform, llmesh.api.model.v1: platform}")


def forged_models() -> FileDescriptorProto:
    """The model server's file, save that nothing of what is sent to it is said to be internal."""
    forged = FileDescriptorProto(name="forged.proto")
    forged.MergeFromString(pinned()[model_pb2.DESCRIPTOR.name].SerializeToString())
    forged.name = "forged.proto"
    for message in forged.message_type:
        for field in message.field:
            field.options.Clear()
    return forged


def test_a_service_of_the_platform_is_admitted_where_the_ownership_names_its_package_in_full() -> None:
    asked = candidate(pinned()[model_pb2.DESCRIPTOR.name])
    admission = admit([seen("unix:/run/models.sock", asked)], ownership=NAMES_MODELS, incumbents={})
    assert admission.tools[MODELS].domain == "platform"


@pytest.mark.parametrize(
    ("owners", "file", "address", "reason"),
    [
        ("{llmesh: platform}", None, "unix:/a", "PLATFORM_PACKAGE"),
        ("{llmesh: platform, llmesh.api: platform}", None, "unix:/a", "PLATFORM_PACKAGE"),
        ("{llmesh.api.model.v1: platform}", forged_models(), "unix:/a", "PLATFORM_PACKAGE"),
        (
            "{llmesh.api.model.v1: platform}",
            contract("llmesh.api.model.v1", "Evil", domain="platform"),
            "unix:/a",
            "PLATFORM_PACKAGE",
        ),
        (
            "{llmesh.api.model.v1: platform}",
            contract("llmesh.api.model.v1.more", "ModelService", domain="platform"),
            "unix:/a",
            "PLATFORM_PACKAGE",
        ),
        ("{llmesh.api.model.v1: support}", None, "unix:/a", "DOMAIN_MISMATCH"),
        ("{llmesh.api.model.v1: platform}", None, "10.0.0.1:50051", "PLATFORM_UNPROTECTED"),
    ],
    ids=["prefix", "longer_prefix", "forged", "another_service", "below", "another_domain", "in_the_clear"],
)
def test_nobody_else_serves_a_package_of_the_platform(
    owners: str, file: FileDescriptorProto | None, address: str, reason: str
) -> None:
    asked = candidate(file or pinned()[model_pb2.DESCRIPTOR.name])
    admission = admit([seen(address, asked)], ownership=parse_ownership(f"owners: {owners}"), incumbents={})
    step = failure(admission, address, asked.service)
    assert step is not None
    assert (step.name, step.reason) == ("own", reason)
    assert not admission.tools


def test_what_the_mesh_file_states_is_held_to_the_ownership_too() -> None:
    asked = candidate(contract(domain=""), grant=Grant(TICKETS, "handbook", "team"))
    step = failure(judge(seen("a", asked)), "a", TICKETS)
    assert step is not None
    assert step.reason == "DOMAIN_MISMATCH"


def test_endpoints_with_one_contract_serve_one_tool() -> None:
    admission = judge(seen("b", candidate(contract()), order=1), seen("a", candidate(contract()), order=2))
    assert addresses(admission, TICKETS) == ["b", "a"]


def test_of_two_contracts_the_one_admitted_before_stays_even_if_it_was_seen_later() -> None:
    old, new = candidate(contract()), candidate(contract(fields=["title"]))
    sightings = [seen("a", new, order=1), seen("b", old, order=2)]
    assert addresses(judge(*sightings), TICKETS) == ["a"]
    admission = judge(*sightings, incumbents={TICKETS: (old.version,)})
    assert addresses(admission, TICKETS) == ["b"]
    step = failure(admission, "a", TICKETS)
    assert step is not None
    assert step.reason == "CONTRACT_CONFLICT"
    assert old.contract.digest in step.message
    assert new.contract.digest in step.message
    assert "id` changed" in step.message


def test_contracts_of_which_one_adds_to_the_other_are_served_beside_each_other() -> None:
    old, new = candidate(contract()), candidate(contract(fields=["id", "title"]))
    for order in (1, -1):
        admission = judge(seen("a", old, order=order), seen("b", new, order=0))
        tool = admission.tools[TICKETS]
        assert [shown.contract.digest for shown, _ in tool.shows] == [new.contract.digest, old.contract.digest]
        assert {each.endpoint.address for each in tool.sightings} == {"a", "b"}
        assert new.contract.digest in admission.steps["a", TICKETS][-1].message
        assert admission.steps["b", TICKETS][-1].message == ""


def test_a_third_contract_must_fit_all_that_are_there() -> None:
    small, left, right = (candidate(contract(fields=["id", *more])) for more in ([], ["title"], ["owner"]))
    sightings = [seen("a", small, order=1), seen("b", left, order=2), seen("c", right, order=3)]
    assert addresses(judge(*sightings), TICKETS) == ["a", "b"]
    held = judge(*sightings, incumbents={TICKETS: (right.version,)})
    assert addresses(held, TICKETS) == ["a", "c"]


def test_a_contract_that_is_refused_holds_no_place() -> None:
    bad, good = candidate(contract(domain="handbook")), candidate(contract())
    assert addresses(judge(seen("a", bad, order=1), seen("b", good, order=2)), TICKETS) == ["b"]


def test_grants_that_differ_are_a_conflict_and_not_merged() -> None:
    first = candidate(contract(domain=""), grant=Grant(TICKETS, "support", "team", (("Get", "read"),)))
    second = candidate(contract(domain=""), grant=Grant(TICKETS, "support", "team"))
    admission = judge(seen("a", first, order=1), seen("b", second, order=2))
    assert addresses(admission, TICKETS) == ["a"]
    step = failure(admission, "b", TICKETS)
    assert step is not None
    assert step.reason == "CONTRACT_CONFLICT"


SHARED = "acme/handbook/v1/shared.proto"


def shared(*fields: str, package: str = "acme.handbook.v1") -> FileDescriptorProto:
    file = FileDescriptorProto(name=SHARED, package=package, syntax="proto3")
    add_message(file, "Shared", fields or ["text"])
    return file


def using(file: FileDescriptorProto, name: str = "acme.handbook.v1.Shared") -> FileDescriptorProto:
    """The same contract with a field of another package's type."""
    file.dependency.append(SHARED)
    file.message_type[0].field.add(
        name="shared",
        number=9,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{name}",
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    return file


def pages(*fields: str) -> Candidate:
    return candidate(using(contract("acme.handbook.v1", "Pages")), shared(*fields))


def borrower(*fields: str) -> Candidate:
    return candidate(using(contract()), shared(*fields))


def test_another_domains_type_is_admitted_if_its_owner_has_the_same() -> None:
    admission = judge(seen("a", borrower(), order=1), seen("b", pages(), order=2))
    assert admission.tools.keys() == {TICKETS, PAGES}


@pytest.mark.parametrize("owner", [[], ["text", "more"]], ids=["no owner's", "the owner's differs"])
def test_another_domains_type_is_refused_otherwise(owner: list[str]) -> None:
    others = [seen("b", pages(*owner), order=0)] if owner else []
    admission = judge(seen("a", borrower(), order=1), *others)
    assert TICKETS not in admission.tools
    step = failure(admission, "a", TICKETS)
    assert step is not None
    assert (step.name, step.reason) == ("identity", "FOREIGN_TYPE")
    assert "acme.handbook.v1.Shared" in step.message


def test_a_type_of_a_package_that_nobody_owns_is_refused() -> None:
    file = using(contract(), "acme.nobody.v1.Shared")
    step = failure(judge(seen("a", candidate(file, shared(package="acme.nobody.v1")))), "a", TICKETS)
    assert step is not None
    assert step.reason == "FOREIGN_TYPE"


def test_domains_that_use_each_others_types_vouch_for_each_other() -> None:
    ours = FileDescriptorProto(name="ours.proto", package="acme.support.v1", syntax="proto3")
    add_message(ours, "Ours", ["id"])
    theirs = FileDescriptorProto(name="theirs.proto", package="acme.handbook.v1", syntax="proto3")
    add_message(theirs, "Theirs", ["id"])
    both = ["ours.proto", "theirs.proto"]
    first = candidate(contract(imports=both), ours, theirs)
    second = candidate(contract("acme.handbook.v1", "Pages", imports=both), ours, theirs)
    assert judge(seen("a", first), seen("b", second)).tools.keys() == {TICKETS, PAGES}


def test_who_relied_on_a_type_falls_with_the_one_that_vouched_for_it() -> None:
    vouching = candidate(using(contract("acme.handbook.v1", "Pages", domain="support")), shared())
    assert judge(seen("a", borrower()), seen("b", vouching)).tools == {}


SMALL, LEFT, RIGHT = VERSIONS = [candidate(contract(fields=["id", *more])) for more in ([], ["title"], ["owner"])]
SIGHTINGS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(VERSIONS)), unique_by=lambda each: each[0])


@given(SIGHTINGS, st.lists(st.sampled_from(VERSIONS), unique_by=id))
def test_a_service_is_contracts_that_fit_and_everyone_is_told_why(
    shown: Iterable[tuple[str, Candidate]], incumbents: list[Candidate]
) -> None:
    sightings = [seen(address, each, order=order) for order, (address, each) in enumerate(shown)]
    admission = judge(*sightings, incumbents={TICKETS: tuple(each.version for each in incumbents)})
    by_version = {each.version: each for each in VERSIONS}
    in_turn = [each for each in incumbents if any(sighting.candidates[0] is each for sighting in sightings)]
    in_turn += [sighting.candidates[0] for sighting in sightings]
    first_of_two = next((each for each in in_turn if each is not SMALL), None)
    fits = [each for each in in_turn if each in (SMALL, first_of_two)]
    for sighting in sightings:
        address = sighting.endpoint.address
        admitted = address in addresses(admission, TICKETS)
        assert (failure(admission, address, TICKETS) is None) is admitted
        assert admitted is (by_version[sighting.candidates[0].version] in fits)
    if sightings:
        assert admission.tools[TICKETS].candidate is (first_of_two or SMALL)
    else:
        assert admission.tools == {}
