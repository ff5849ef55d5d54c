"""Admission as endpoints come, change and go: of thousands of services, those that a change touches are judged anew.

One service's verdict depends on who else shows that service, and, where it
defines types of another owner's, on the services that vouch for them. So a
change touches the services of the endpoints that changed and, where anyone
defines another's types, everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from gateway.catalog import Step
from gateway.discovery.admit import Admitted, Sighting, admit
from gateway.reading.candidate import Candidate
from governance.ownership import Ownership, is_platform

__all__ = ["RollingAdmission"]


class RollingAdmission:
    """The verdict on everything seen, as admit() gives it. tools and steps are as Admission has them."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self.tools: dict[str, Admitted] = {}
        self.steps: dict[tuple[str, str], tuple[Step, ...]] = {}
        self._ownership: Ownership | None = None
        self._seen: set[Sighting] = set()
        self._showing: dict[str, set[Sighting]] = {}
        self._entangled: set[Sighting] = set()

    def admit(
        self,
        sightings: Iterable[Sighting],
        *,
        ownership: Ownership,
        incumbents: Mapping[str, tuple[str, ...]],
        extends: Callable[[Candidate, Candidate], str],
    ) -> set[str]:
        """Take in everything seen now; which services were judged anew. What it takes is as of the function."""
        seen = set(sightings)
        entangled = bool(self._entangled)
        if ownership is not self._ownership:
            self._forget(self._seen)
            touched, self._seen = set(self.tools), set()
            self._ownership = ownership
        else:
            touched = set[str]()
        for gone in (changed := self._seen - seen):
            touched.update(each.service for each in gone.candidates)
        self._forget(changed)
        for new in seen - self._seen:
            touched.update(each.service for each in new.candidates)
            self._learn(new, ownership)
        self._seen = seen
        if entangled or self._entangled:
            touched |= self._showing.keys()
        self._judge(touched, ownership=ownership, incumbents=incumbents, extends=extends)
        return touched

    def _forget(self, sightings: Collection[Sighting]) -> None:
        for sighting in sightings:
            self._entangled.discard(sighting)
            for candidate in sighting.candidates:
                self.steps.pop((sighting.endpoint.address, candidate.service), None)
                self._showing.get(candidate.service, set[Sighting]()).discard(sighting)

    def _learn(self, sighting: Sighting, ownership: Ownership) -> None:
        for candidate in sighting.candidates:
            self._showing.setdefault(candidate.service, set()).add(sighting)
            if _defines_types_of_others(candidate, ownership):
                self._entangled.add(sighting)

    def _judge(
        self,
        touched: Collection[str],
        *,
        ownership: Ownership,
        incumbents: Mapping[str, tuple[str, ...]],
        extends: Callable[[Candidate, Candidate], str],
    ) -> None:
        showing = {sighting for service in touched for sighting in self._showing.get(service, ())}
        verdict = admit(
            (_narrowed(each, touched) for each in showing), ownership=ownership, incumbents=incumbents, extends=extends
        )
        for service in touched:
            self.tools.pop(service, None)
            if not self._showing.get(service):
                self._showing.pop(service, None)
        self.tools.update(verdict.tools)
        self.steps.update(verdict.steps)


def _defines_types_of_others(candidate: Candidate, ownership: Ownership) -> bool:
    domain = ownership.domain_of(candidate.package)
    return any(is_platform(package) or ownership.domain_of(package) != domain for package in candidate.types)


def _narrowed(sighting: Sighting, services: Collection[str]) -> Sighting:
    """The sighting with these services alone."""
    candidates = tuple(each for each in sighting.candidates if each.service in services)
    return sighting if len(candidates) == len(sighting.candidates) else replace(sighting, candidates=candidates)
