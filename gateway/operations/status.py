"""What the gateway knows of its mesh, for `llmesh status`: told on a socket of this machine, so to its owner alone."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from gateway.blocks.blocks import Blocks
from gateway.catalog import Catalog, CatalogBoard, State
from gateway.control import Control
from gateway.policy import PolicyFiles
from gateway.records.ingest import Ingest
from gateway.xds.publish import Publisher


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a gateway's status comes from.

    mesh_file_fault: why the mesh file is not taken up; None if it is.
    addresses: what else it names; empty ones are left out. ingest: what keeps the records.
    unkept: what should be on disk -> why it is not; empty if it is.
    """

    shown: CatalogBoard
    control: Control
    publisher: Publisher
    policies: PolicyFiles
    owner_of: Callable[[str], str | None]
    mesh_file_fault: Callable[[], str | None]
    addresses: Mapping[str, str]
    ingest: Ingest
    blocks: Blocks
    unkept: Callable[[], Mapping[str, str]]


def status(facts: Facts) -> dict[str, object]:
    """The status now, as JSON has it."""
    catalog = facts.shown.current
    states = Counter(report.state for report in catalog.reports.values())
    return {
        **{name: address for name, address in facts.addresses.items() if address},
        "versions": {"ll_mesh": version("ll-mesh"), "python": platform.python_version()},
        "policy": {
            "digest": facts.control.loaded.policy.bundle.digest,
            "error": facts.policies.error,
            "stale_keys": facts.policies.stale_keys,
        },
        "mesh_file": {"error": facts.mesh_file_fault() or ""},
        "records": {
            "error": facts.ingest.fault,
            "unread_bytes": facts.ingest.unread_bytes,
            "lost": facts.ingest.lost,
            "shortened": facts.ingest.shortened,
            "disputed": facts.ingest.disputed,
        },
        "envoys": facts.publisher.streams,
        "unkept": {what: error for what, error in facts.unkept().items() if error},
        "blocks": {"in_force": len(facts.blocks.current), "error": facts.blocks.error},
        "catalog": {
            "version": catalog.version,
            "tools": len(catalog.tools),
            "contracts": len({tool.contract.digest for tool in catalog.tools.values()}),
        },
        "endpoints": {state.name.lower(): states[state] for state in State},
        "held": sorted(address for address, report in catalog.reports.items() if report.held),
        "refused": _refused(facts, catalog),
        "nacks": [
            {"resource": name, "type": url.rpartition(".")[2], "words": words, **_owner(facts, catalog, name)}
            for url, name, words in facts.publisher.refusals
        ],
    }


def _refused(facts: Facts, catalog: Catalog) -> list[dict[str, str]]:
    return [
        {
            "address": address,
            "service": step.service,
            "step": step.name,
            "reason": step.reason,
            "message": step.message,
            **_owner(facts, catalog, step.service),
        }
        for address, report in catalog.reports.items()
        for step in report.steps
        if not step.passed
    ]


def _owner(facts: Facts, catalog: Catalog, service: str) -> dict[str, str]:
    """Who is to be told: the domain that owns the package, and whom the tool's own sheet names."""
    tool = catalog.tools.get(service)
    contact = tool.sheet.contact or tool.sheet.owner_team if tool else ""
    return {"owner": facts.owner_of(service) or "", "contact": contact}
