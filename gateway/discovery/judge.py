"""From everything seen of every endpoint to the catalog's content."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from gateway.catalog import Catalog, Endpoint, Report, State, Step, Tool, Variant
from gateway.discovery.admit import Admitted, Sighting
from gateway.discovery.compatible import Comparison
from gateway.discovery.rolling import RollingAdmission
from governance.ownership import Ownership

__all__ = ["Judge", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """What is known of one endpoint. sighting: None before its first look. failed: why it does not answer."""

    endpoint: Endpoint
    sighting: Sighting | None
    failed: Step | None


@dataclass(frozen=True, slots=True)
class _Publication:
    """What Envoy said of a tool in these versions."""

    versions: tuple[str, ...]
    step: Step


class Judge:
    """Holds what must be remembered between verdicts: who was admitted, and what Envoy said."""

    def __init__(self) -> None:
        """Nobody is admitted yet."""
        self._incumbents: dict[str, tuple[str, ...]] = {}
        self._admission = RollingAdmission()
        # What was judged last, by address; services of which Envoy has said something since.
        self._views: Mapping[str, View] = {}
        self._told: set[str] = set()
        self._comparison = Comparison()
        self._published: dict[str, _Publication] = {}

    def publish(self, step: Step) -> bool:
        """Take in what Envoy said of a tool as it is now; whether that is new."""
        found = _Publication(self._incumbents.get(step.service, ()), step)
        if self._published.get(step.service) == found:
            return False
        self._published[step.service] = found
        self._told.add(step.service)
        return True

    def judge(self, views: Iterable[View], before: Catalog, *, ownership: Ownership, now_s: float) -> Catalog:
        """The catalog that follows; what has not changed since before is the same object.

        now_s: Unix seconds. Its version is that of before.
        """
        known = sorted(views, key=lambda each: each.endpoint.address)
        touched = self._told | self._admission.admit(
            (each.sighting for each in known if each.sighting is not None),
            ownership=ownership,
            incumbents=self._incumbents,
            extends=self._comparison.extends,
        )
        self._told = set()
        tools = dict(before.tools)
        for name in sorted(touched):
            self._take_in(name, tools)
        if tools.keys() != before.tools.keys():
            tools = {name: tools[name] for name in sorted(tools)}
        reports = {each.endpoint.address: self._report(each, touched, before, now_s=now_s) for each in known}
        self._views = {each.endpoint.address: each for each in known}
        return Catalog(before.version, tools, reports)

    def _take_in(self, name: str, tools: dict[str, Tool]) -> None:
        """Put the tool of that name, as it was admitted, among the tools; or take it away."""
        admitted = self._admission.tools.get(name)
        last = tools.pop(name, None)
        versions = self._incumbents.pop(name, None)
        if admitted is not None:
            self._incumbents[name] = admitted.versions
            tools[name] = _tool(name, admitted, last if versions == admitted.versions else None)
        published = self._published.get(name)
        if published is not None and (admitted is None or published.versions != admitted.versions):
            del self._published[name]

    def _report(self, view: View, touched: Collection[str], before: Catalog, *, now_s: float) -> Report:
        last = before.reports.get(view.endpoint.address)
        same = last is not None and last.held is view.endpoint.held
        if last is not None and same and self._views.get(view.endpoint.address) == view and not _shows(view, touched):
            return last
        admission = self._admission
        steps = tuple(self._steps(view, admission))
        services = tuple(
            sorted(_admitted_services(view, admission) - {each.service for each in steps if not each.passed})
        )
        state = _state(view, services)
        changed_s = last.changed_s if last is not None and last.state is state else now_s
        report = Report(view.endpoint, state, steps, services, changed_s, held=view.endpoint.held)
        return last if last is not None and last == report else report

    def _steps(self, view: View, admission: RollingAdmission) -> Iterator[Step]:
        sighting = view.sighting
        if view.failed is not None:
            yield view.failed
        if sighting is None:
            return
        yield from (step for step in sighting.steps if view.failed is None or step.name != "connect")
        for candidate in sighting.candidates:
            yield from admission.steps[view.endpoint.address, candidate.service]
            published = self._published.get(candidate.service)
            if published is not None and candidate.version in published.versions:
                yield published.step


def _tool(service: str, admitted: Admitted, last: Tool | None) -> Tool:
    """The tool as it is now; the last one if that is equal. last: None if the contract is another."""
    candidate = admitted.candidate
    if candidate.sheet is None:
        raise AssertionError("a service without a sheet was admitted")
    endpoints = tuple(sorted(each.endpoint for each in admitted.sightings))
    ready = frozenset(each.endpoint for each in admitted.sightings if each.live)
    checked = all(service in each.health_checked for each in admitted.sightings)
    variants = _variants(admitted)
    if last is not None and (last.domain, last.endpoints, last.ready, last.health_checked, _who(last.variants)) == (
        admitted.domain,
        endpoints,
        ready,
        checked,
        _who(variants),
    ):
        return last
    return Tool(
        service=service,
        domain=admitted.domain,
        sheet=candidate.sheet,
        methods=candidate.methods,
        contract=candidate.contract,
        endpoints=endpoints,
        ready=ready,
        health_checked=checked,
        variants=variants,
    )


def _variants(admitted: Admitted) -> tuple[Variant, ...]:
    if len(admitted.shows) == 1:
        return ()
    return tuple(
        Variant(
            contract=candidate.contract,
            methods=frozenset(method.name for method in candidate.methods),
            endpoints=tuple(sorted(each.endpoint for each in sightings)),
        )
        for candidate, sightings in admitted.shows
    )


def _who(variants: tuple[Variant, ...]) -> tuple[tuple[Endpoint, ...], ...]:
    return tuple(variant.endpoints for variant in variants)


def _shows(view: View, services: Collection[str]) -> bool:
    return view.sighting is not None and any(each.service in services for each in view.sighting.candidates)


def _admitted_services(view: View, admission: RollingAdmission) -> set[str]:
    candidates = view.sighting.candidates if view.sighting is not None else ()
    return {each.service for each in candidates if admission.steps[view.endpoint.address, each.service][-1].passed}


def _state(view: View, services: tuple[str, ...]) -> State:
    if view.sighting is None:
        return State.PENDING
    if not view.sighting.live:
        return State.DOWN
    return State.READY if services else State.REFUSED
