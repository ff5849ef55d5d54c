"""Which of the services that endpoints show are admitted, and as what.

Pure: everything seen goes in at once and every verdict comes out, so what is
admitted never depends on the path that led there, save one thing: where two
endpoints show one service with different contracts, the one admitted first
stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gateway.catalog import Endpoint, Step
from gateway.discovery.candidate import Candidate
from gateway.discovery.refusal import Refusal
from governance.ownership import Ownership, is_platform

__all__ = ["Admission", "Admitted", "Sighting", "admit"]

# The steps that admission takes, in order.
STEPS = ("own", "options", "identity", "conflict")


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What an endpoint showed when it was last looked at.

    order: grows; what was seen first is admitted first. steps: those before
    admission, failed ones included. live: it answers now. health_checked:
    services whose health it tells by their names.
    """

    endpoint: Endpoint
    order: int
    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...] = ()
    live: bool = True
    health_checked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admitted service, and who shows it, in the order seen."""

    domain: str
    candidate: Candidate
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict on everything seen.

    steps: (address, service) -> the steps taken; the last one failed, or all
    passed and the service is admitted.
    """

    tools: Mapping[str, Admitted]
    steps: Mapping[tuple[str, str], tuple[Step, ...]]


@dataclass(slots=True, eq=False)
class _Case:
    """One service of one endpoint, and the verdict so far."""

    sighting: Sighting
    candidate: Candidate
    domain: str = ""
    failed: Step | None = None


def admit(sightings: Iterable[Sighting], *, ownership: Ownership, incumbents: Mapping[str, str]) -> Admission:
    """Judge everything seen. incumbents: service -> the version that is admitted now."""
    ordered = sorted(sightings, key=lambda each: each.order)
    cases = [_Case(each, candidate) for each in ordered for candidate in each.candidates]
    for case in cases:
        _judge_alone(case, ownership)
    winners = _judge_types(cases, ownership, incumbents)
    for case in cases:
        winner = winners.get(case.candidate.service)
        if case.failed is None and winner is not None and winner.candidate.version != case.candidate.version:
            case.failed = _conflict(case, winner)
    return Admission(
        tools=_tools(cases),
        steps={(each.sighting.endpoint.address, each.candidate.service): tuple(_steps(each)) for each in cases},
    )


def _judge_alone(case: _Case, ownership: Ownership) -> None:
    """The steps that need no other candidate: own and options."""
    candidate = case.candidate
    try:
        case.domain = _owner(candidate, ownership)
    except Refusal as refusal:
        case.failed = refusal.step("own", candidate.service)
        return
    case.failed = candidate.fault


def _owner(candidate: Candidate, ownership: Ownership) -> str:
    if is_platform(candidate.package):
        message = f"`{candidate.package}` is the platform's own; a tool's package must be its domain's"
        raise Refusal("PLATFORM_PACKAGE", message)
    domain = ownership.domain_of(candidate.package)
    if domain is None:
        raise Refusal("NO_OWNER", f"no domain owns the package `{candidate.package}`: add it to ownership.yaml")
    if candidate.sheet is not None and candidate.sheet.domain != domain:
        raise Refusal(
            "DOMAIN_MISMATCH",
            f"the tool says it is of domain `{candidate.sheet.domain[:80]}`, and `{candidate.package}` is owned by "
            f"`{domain}`: correct the one or, in ownership.yaml, the other",
        )
    return domain


def _judge_types(cases: list[_Case], ownership: Ownership, incumbents: Mapping[str, str]) -> dict[str, _Case]:
    """Fail every case that defines another owner's types differently; the winner of each service that is left.

    Starts from everyone and takes away, so that domains that use each other's
    types vouch for each other.
    """
    foreign = {id(case): _foreign(case, ownership) for case in cases if case.failed is None}
    while True:
        winners = _winners(cases, incumbents)
        vouched = _vouched(winners.values(), ownership, {name for each in foreign.values() for name in each})
        fell = False
        for case in cases:
            wrong = next(
                (each for each in foreign.get(id(case), {}).items() if each[1] not in vouched.get(each[0], ())), None
            )
            if case.failed is None and wrong is not None:
                case.failed = _foreign_type(case, wrong[0], ownership)
                fell = True
        if not fell:
            return winners


def _foreign(case: _Case, ownership: Ownership) -> dict[str, str]:
    """Fingerprints of the types that the case's domain does not own."""
    return {
        name: fingerprint
        for package, types in case.candidate.types.items()
        if is_platform(package) or ownership.domain_of(package) != case.domain
        for name, fingerprint in types.items()
    }


def _vouched(winners: Iterable[_Case], ownership: Ownership, wanted: set[str]) -> dict[str, set[str]]:
    """What the wanted types are, by those who own them."""
    found: dict[str, set[str]] = {}
    for case in winners if wanted else ():
        for package, types in case.candidate.types.items():
            if not is_platform(package) and ownership.domain_of(package) == case.domain:
                for name in wanted & types.keys():
                    found.setdefault(name, set()).add(types[name])
    return found


def _foreign_type(case: _Case, name: str, ownership: Ownership) -> Step:
    package = next(package for package, types in case.candidate.types.items() if name in types)
    owner = "the platform" if is_platform(package) else f"`{ownership.domain_of(package) or 'nobody'}`"
    message = (
        f"the contract defines `{name}`, which belongs to {owner}, and not as its owner's admitted contracts do: "
        "compile against the owner's .proto, under its own import path"
    )
    return Refusal("FOREIGN_TYPE", message).step("identity", case.candidate.service)


def _winners(cases: list[_Case], incumbents: Mapping[str, str]) -> dict[str, _Case]:
    """For each service the case that stands: the one admitted now if it is still shown, else the first seen."""
    winners: dict[str, _Case] = {}
    for case in cases:
        candidate = case.candidate
        if case.failed is not None:
            continue
        held = incumbents.get(candidate.service)
        first = winners.setdefault(candidate.service, case)
        if candidate.version == held != first.candidate.version:
            winners[candidate.service] = case
    return winners


def _conflict(case: _Case, winner: _Case) -> Step:
    ours, theirs = case.candidate, winner.candidate
    first = winner.sighting.endpoint.address
    differs = f"contract {ours.contract.digest}, and {first}, admitted first, with {theirs.contract.digest}"
    if ours.contract.digest == theirs.contract.digest:
        differs = f"a grant of the mesh file that differs from the one of {first}, admitted first"
    message = (
        f"this endpoint serves `{ours.service}` with {differs}: "
        "stop the other one, or give the new contract a package version of its own"
    )
    return Refusal("CONTRACT_CONFLICT", message).step("conflict", ours.service)


def _tools(cases: Iterable[_Case]) -> dict[str, Admitted]:
    by_service: dict[str, list[_Case]] = {}
    for case in cases:
        if case.failed is None:
            by_service.setdefault(case.candidate.service, []).append(case)
    return {
        service: Admitted(group[0].domain, group[0].candidate, tuple(each.sighting for each in group))
        for service, group in by_service.items()
    }


def _steps(case: _Case) -> Iterator[Step]:
    for name in STEPS:
        if case.failed is not None and case.failed.name == name:
            yield case.failed
            return
        note = case.candidate.note if name == "options" else ""
        yield Step(name=name, passed=True, service=case.candidate.service, message=note)
