"""Which of the services that endpoints show are admitted, and as what.

Pure: everything seen goes in at once and every verdict comes out, so what is
admitted never depends on the path that led there, save one thing: where two
endpoints show one service with contracts of which neither adds to the other,
the one admitted first stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cmp_to_key

from gateway.catalog import Endpoint, Step
from gateway.discovery.compatible import extends as compare
from gateway.reading.candidate import Candidate
from gateway.reading.refusal import Refusal
from governance.ownership import Ownership, is_platform

__all__ = ["Admission", "Admitted", "Sighting", "admit"]

# What keeps a contract from being another one with more in it; empty if nothing does.
Extends = Callable[[Candidate, Candidate], str]

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
    """An admitted service.

    shows: its contracts, the largest first, each with who shows it in the
    order seen. versions: of those contracts, in the order of admission.
    """

    domain: str
    shows: tuple[tuple[Candidate, tuple[Sighting, ...]], ...]
    versions: tuple[str, ...]

    @property
    def candidate(self) -> Candidate:
        """The service with the largest of its contracts."""
        return self.shows[0][0]

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """Everyone who shows it, in the order seen."""
        found = (sighting for _, sightings in self.shows for sighting in sightings)
        return tuple(sorted(found, key=lambda each: each.order))


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


# The cases that stand, one for each version of a service, in the order of admission.
_Standing = Mapping[str, _Case]


def admit(
    sightings: Iterable[Sighting],
    *,
    ownership: Ownership,
    incumbents: Mapping[str, tuple[str, ...]],
    extends: Extends = compare,
) -> Admission:
    """Judge everything seen. incumbents: service -> the versions that are admitted now, in the order of admission."""
    ordered = sorted(sightings, key=lambda each: each.order)
    cases = [_Case(each, candidate) for each in ordered for candidate in each.candidates]
    for case in cases:
        _judge_alone(case, ownership)
    standing = _judge_types(cases, ownership, _Bench(incumbents, extends))
    for case in cases:
        beside = standing.get(case.candidate.service, {})
        if case.failed is None and case.candidate.version not in beside:
            case.failed = _conflict(case, beside.values(), extends)
    let_in: dict[str, list[_Case]] = {}
    for case in cases:
        if case.failed is None:
            let_in.setdefault(case.candidate.service, []).append(case)
    tools = {service: _admitted(found, standing[service], extends) for service, found in let_in.items()}
    return Admission(
        tools=tools,
        steps={(each.sighting.endpoint.address, each.candidate.service): tuple(_steps(each, tools)) for each in cases},
    )


def _judge_alone(case: _Case, ownership: Ownership) -> None:
    """The steps that need no other candidate: own and options."""
    candidate = case.candidate
    try:
        if is_platform(candidate.package):
            _check_platform(case, ownership)
        case.domain = _owner(candidate, ownership)
    except Refusal as refusal:
        case.failed = refusal.step("own", candidate.service)
        return
    case.failed = candidate.fault


def _check_platform(case: _Case, ownership: Ownership) -> None:
    """Raise Refusal unless the ownership file names this package of the platform's, and it is served as pinned."""
    candidate = case.candidate
    if candidate.package not in ownership.prefixes or not candidate.pinned:
        message = f"`{candidate.package}` is the platform's own; a tool's package must be its domain's"
        raise Refusal("PLATFORM_PACKAGE", message)
    if not case.sighting.endpoint.protected:
        message = f"`{candidate.service}` is the platform's own, and is served on a Unix socket or over TLS alone"
        raise Refusal("PLATFORM_UNPROTECTED", message)


def _owner(candidate: Candidate, ownership: Ownership) -> str:
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


@dataclass(frozen=True, slots=True)
class _Bench:
    """Who was admitted before, and how contracts are compared."""

    incumbents: Mapping[str, tuple[str, ...]]
    extends: Extends

    def standing(self, cases: Iterable[_Case]) -> dict[str, _Standing]:
        """Service -> the contracts that can be served beside each other: those admitted now, then those seen first."""
        shown: dict[str, dict[str, _Case]] = {}
        for case in cases:
            if case.failed is None:
                shown.setdefault(case.candidate.service, {}).setdefault(case.candidate.version, case)
        return {service: self._beside(service, versions) for service, versions in shown.items()}

    def _beside(self, service: str, versions: Mapping[str, _Case]) -> _Standing:
        if len(versions) == 1:
            return versions
        held = [version for version in self.incumbents.get(service, ()) if version in versions]
        standing: dict[str, _Case] = {}
        for version in dict.fromkeys([*held, *versions]):
            candidate = versions[version].candidate
            if all(_clash(candidate, other.candidate, self.extends) == "" for other in standing.values()):
                standing[version] = versions[version]
        return standing


def _clash(one: Candidate, other: Candidate, extends: Extends) -> str:
    """Why neither adds to the other; empty if one does."""
    return extends(one, other) and extends(other, one) and extends(one, other)


def _judge_types(cases: list[_Case], ownership: Ownership, bench: _Bench) -> dict[str, _Standing]:
    """Fail every case that defines another owner's types differently; what stands of each service that is left.

    Starts from everyone and takes away, so that domains that use each other's
    types vouch for each other.
    """
    foreign = {id(case): _foreign(case, ownership) for case in cases if case.failed is None}
    while True:
        standing = bench.standing(cases)
        winners = (case for beside in standing.values() for case in beside.values())
        vouched = _vouched(winners, ownership, {name for each in foreign.values() for name in each})
        fell = False
        for case in cases:
            wrong = next(
                (each for each in foreign.get(id(case), {}).items() if each[1] not in vouched.get(each[0], ())), None
            )
            if case.failed is None and wrong is not None:
                case.failed = _foreign_type(case, wrong[0], ownership)
                fell = True
        if not fell:
            return standing


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


def _conflict(case: _Case, beside: Iterable[_Case], extends: Extends) -> Step:
    ours = case.candidate
    clashing = next(each for each in beside if _clash(ours, each.candidate, extends))
    theirs, first = clashing.candidate, clashing.sighting.endpoint.address
    differs = f"contract {ours.contract.digest}, and {first}, admitted first, with {theirs.contract.digest}"
    if ours.contract.digest == theirs.contract.digest:
        differs = f"a grant of the mesh file that differs from the one of {first}, admitted first"
    message = (
        f"this endpoint serves `{ours.service}` with {differs}; neither only adds to the other "
        f"({_clash(ours, theirs, extends)}): stop the other one, or give the new contract a package version of its own"
    )
    return Refusal("CONTRACT_CONFLICT", message).step("conflict", ours.service)


def _admitted(cases: Iterable[_Case], standing: _Standing, extends: Extends) -> Admitted:
    """A service that these endpoints show with the contracts that stand."""

    def compared(one: _Case, other: _Case) -> int:
        if not extends(one.candidate, other.candidate):
            # Of two that add nothing to each other, the one admitted first counts as the larger.
            return -1 if extends(other.candidate, one.candidate) else 0
        return 1

    first = next(iter(standing.values()))
    largest_first = sorted(standing.values(), key=cmp_to_key(compared)) if len(standing) > 1 else [first]
    shows: dict[str, list[Sighting]] = {each.candidate.version: [] for each in largest_first}
    for case in cases:
        shows[case.candidate.version].append(case.sighting)
    return Admitted(
        domain=first.domain,
        shows=tuple((standing[version].candidate, tuple(found)) for version, found in shows.items()),
        versions=tuple(standing),
    )


def _steps(case: _Case, tools: Mapping[str, Admitted]) -> Iterator[Step]:
    candidate = case.candidate
    for name in STEPS:
        if case.failed is not None and case.failed.name == name:
            yield case.failed
            return
        note = candidate.note if name == "options" else ""
        if name == "conflict":
            shown = tools[candidate.service].candidate
            if shown.version != candidate.version:
                theirs = shown.contract.digest
                note = f"it serves contract {candidate.contract.digest}; the mesh shows one that adds to it: {theirs}"
        yield Step(name=name, passed=True, service=candidate.service, message=note)
