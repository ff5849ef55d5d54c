"""The gateway's figures as Prometheus reads them, taken from its parts when they are asked for.

The parts count what only they see; nothing is counted twice, and no part knows
of Prometheus. No label names a caller, an endpoint or a path; processes go by their names in the mesh file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from grpc import StatusCode
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.blocks.blocks import Blocks
from gateway.blocks.words import Kind
from gateway.catalog import Catalog, CatalogBoard, State
from gateway.certificates import Certificates
from gateway.control import Control
from gateway.discovery.discovery import Discovery
from gateway.fanout.counts import Counts
from gateway.fanout.legs import Legs
from gateway.policy import PolicyFiles
from gateway.records.ingest import Ingest
from gateway.sources.lease import Leases
from gateway.tally import Tally
from gateway.xds.messages import ENVOY_VERSION
from gateway.xds.publish import Publisher
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.status import CODES
from llmesh.supervisor.state import ChildState, Condition

NAMESPACE = "llmesh_gateway"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: what it tells, and the labels that its series differ by."""

    kind: Literal["gauge", "counter", "summary"]
    text: str
    labels: tuple[str, ...] = ()


FIGURES: Mapping[str, Figure] = {
    "llmesh_build_info": Figure("gauge", "1, for the versions in its labels.", ("version", "envoy")),
    "llmesh_envoy_answers": Figure("gauge", "1 if Envoy told its figures to this scrape."),
    "llmesh_envoys": Figure("gauge", "Envoys that are connected to the gateway."),
    "llmesh_catalog_version": Figure("gauge", "Grows with each change of the catalog that callers see."),
    "llmesh_tools": Figure("gauge", "Tools in the catalog that callers see."),
    "llmesh_tools_ready": Figure("gauge", "Of these, the tools that an endpoint serves now."),
    "llmesh_endpoints": Figure("gauge", "Endpoints, by what became of them.", ("state",)),
    "llmesh_endpoints_held": Figure(
        "gauge", "Of these, the endpoints kept because too many vanished at once to be believed."
    ),
    "llmesh_leases": Figure("gauge", "Leases that processes hold on a place in the mesh."),
    "llmesh_refusals": Figure(
        "gauge", "What is refused now: an endpoint, or one of its services, by reason.", ("reason",)
    ),
    "llmesh_blocks": Figure("gauge", "Blocks in force, by what they stop.", ("kind",)),
    "llmesh_blocks_not_kept": Figure("gauge", "1 while nothing can be blocked or unblocked: the database is away."),
    "llmesh_fan_outs_running": Figure("gauge", "Fan-outs that are being answered."),
    "llmesh_fan_out_branches_open": Figure(
        "gauge", "Branches at tools that have not ended, those included that were given up."
    ),
    "llmesh_fan_out_connections": Figure(
        "gauge", "Connections to Envoy for branches: one for each caller that has any."
    ),
    "llmesh_fan_out_held_bytes": Figure(
        "gauge", "Bytes of answers that their callers have not read, or that are to be merged."
    ),
    "llmesh_fan_outs": Figure(
        "counter", "Fan-outs that ended, by why; `left`: their caller was gone before the summary.", ("end",)
    ),
    "llmesh_fan_out_branches": Figure("counter", "Branches whose end was told, by its code.", ("code",)),
    "llmesh_looks_running": Figure("gauge", "Endpoints whose contracts are being read."),
    "llmesh_look_seconds": Figure("summary", "Time to read an endpoint's contracts by reflection."),
    "llmesh_snapshot_seconds": Figure("summary", "Time to make Envoy's resources after a change."),
    "llmesh_pushes": Figure("counter", "Responses sent to Envoy, by the kind of resource.", ("kind",)),
    "llmesh_nacks": Figure("counter", "Resources that Envoy refused."),
    "llmesh_resources_refused": Figure("gauge", "Resources whose newest version Envoy refuses now."),
    "llmesh_policy_loads": Figure("counter", "Times that the policy files were right."),
    "llmesh_policy_load_errors": Figure("counter", "Times that the policy files were refused."),
    "llmesh_records": Figure("counter", "Decision records made of the call log."),
    "llmesh_records_counted": Figure("counter", "Refused calls that have no record each, but are counted in one."),
    "llmesh_records_failures": Figure("counter", "Times that the call log could not be read, or no record kept."),
    "llmesh_records_unread_bytes": Figure("gauge", "Bytes of the call log of which no records are made yet."),
    "llmesh_records_broken_lines": Figure("counter", "Lines of the call log that nothing could be made of."),
    "llmesh_records_disputed": Figure("counter", "Calls that ended otherwise than any policy known says."),
    "llmesh_policy_refused": Figure("gauge", "1 while the policy in force is not what the files say."),
    "llmesh_certificates_refused": Figure("gauge", "1 while a certificate in force is not what its file says."),
    "llmesh_process_runs": Figure(
        "gauge", "1 while a process of the mesh file, Envoy or the gateway runs and is not known to hang.", ("process",)
    ),
    "llmesh_process_restarts": Figure(
        "counter", "Times that it was started again after it had ended, or was killed for hanging.", ("process",)
    ),
}
# What prometheus-client tells of a process.
PROCESS: Mapping[str, str] = {
    f"{NAMESPACE}_process_cpu_seconds_total": "CPU time of the gateway.",
    f"{NAMESPACE}_process_resident_memory_bytes": "Memory that the gateway takes from the machine.",
    f"{NAMESPACE}_process_virtual_memory_bytes": "Address space of the gateway.",
    f"{NAMESPACE}_process_start_time_seconds": "When the gateway was started, in Unix seconds.",
    f"{NAMESPACE}_process_open_fds": "Files and sockets that the gateway has open.",
    f"{NAMESPACE}_process_max_fds": "How many of these it may have open.",
}
# The value of a metric's series by the values of its labels.
Series = Mapping[tuple[str, ...], float | Tally]


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts of a gateway that have something to tell."""

    shown: CatalogBoard
    control: Control
    discovery: Discovery
    publisher: Publisher
    policies: PolicyFiles
    leases: Leases
    certificates: Certificates
    ingest: Ingest
    blocks: Blocks
    legs: Legs
    fan_outs: Counts


class Metrics:
    """The figures of one gateway."""

    def __init__(self, watched: Watched) -> None:
        """Read them from these parts."""
        self._watched = watched

    def text(self, *, envoy_answers: bool, processes: Sequence[ChildState]) -> bytes:
        """The figures now, in Prometheus' text format. processes: as the supervisor says; none where there is none."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Now({**self._series(envoy_answers=envoy_answers), **_by_process(processes)}))
        ProcessCollector(namespace=NAMESPACE, registry=registry)
        return generate_latest(registry)

    def _series(self, *, envoy_answers: bool) -> Mapping[str, Series]:
        control, discovery, publisher = self._watched.control, self._watched.discovery, self._watched.publisher
        policies, catalog, ingest = self._watched.policies, self._watched.shown.current, self._watched.ingest
        versions = (version("ll-mesh"), ".".join(map(str, ENVOY_VERSION)))
        return {
            "llmesh_build_info": {versions: 1},
            "llmesh_envoy_answers": {(): envoy_answers},
            "llmesh_envoys": {(): publisher.streams},
            "llmesh_catalog_version": {(): catalog.version},
            "llmesh_tools": {(): len(catalog.tools)},
            "llmesh_tools_ready": {(): sum(bool(tool.ready) for tool in catalog.tools.values())},
            "llmesh_endpoints": _by_state(catalog),
            "llmesh_endpoints_held": {(): sum(report.held for report in catalog.reports.values())},
            "llmesh_leases": {(): len(self._watched.leases)},
            "llmesh_refusals": _by_reason(catalog),
            "llmesh_blocks": _by_kind(self._watched.blocks),
            "llmesh_blocks_not_kept": {(): bool(self._watched.blocks.error)},
            **_of_fan_outs(self._watched.legs, self._watched.fan_outs),
            "llmesh_looks_running": {(): discovery.looks.running},
            "llmesh_look_seconds": {(): discovery.looks},
            "llmesh_snapshot_seconds": {(): control.builds},
            "llmesh_pushes": {(url.rpartition(".")[2],): count for url, count in publisher.pushes.items()},
            "llmesh_nacks": {(): publisher.nacks},
            "llmesh_resources_refused": {(): len(publisher.refusals)},
            "llmesh_policy_loads": {(): policies.loads},
            "llmesh_policy_load_errors": {(): policies.load_errors},
            "llmesh_records": {(): ingest.made},
            "llmesh_records_counted": {(): ingest.counted},
            "llmesh_records_failures": {(): ingest.failures},
            "llmesh_records_unread_bytes": {(): ingest.unread_bytes},
            "llmesh_records_broken_lines": {(): ingest.broken_lines},
            "llmesh_records_disputed": {(): ingest.disputed},
            "llmesh_policy_refused": {(): bool(policies.error)},
            "llmesh_certificates_refused": {(): bool(self._watched.certificates.error)},
        }


class _Now(Collector):
    """What prometheus-client asks for metrics, once."""

    def __init__(self, found: Mapping[str, Series]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        for name, figure in FIGURES.items():
            yield _metric(name, figure, self._found[name])


def _metric(name: str, figure: Figure, series: Series) -> Metric:
    made = Metric(name, figure.text, figure.kind)
    for values, value in series.items():
        labels = dict(zip(figure.labels, values, strict=True))
        if isinstance(value, Tally):
            made.add_sample(f"{name}_count", labels, value.count)
            made.add_sample(f"{name}_sum", labels, value.seconds)
        else:
            made.add_sample(f"{name}_total" if figure.kind == "counter" else name, labels, value)
    return made


def _by_state(catalog: Catalog) -> Series:
    counted = Counter(report.state for report in catalog.reports.values())
    return {(state.name.lower(),): counted[state] for state in State}


def _by_reason(catalog: Catalog) -> Series:
    failed = (step.reason for report in catalog.reports.values() for step in report.steps if not step.passed)
    return {(reason,): count for reason, count in Counter(failed).items()}


def _by_kind(blocks: Blocks) -> Series:
    counted = Counter(target.kind for target in blocks.current)
    return {(kind.value,): counted[kind] for kind in Kind}


def _of_fan_outs(legs: Legs, counts: Counts) -> Mapping[str, Series]:
    ends = {end: name.removeprefix("END_").lower() for name, end in pb.Summary.End.items()}
    ends[pb.Summary.END_UNSPECIFIED] = "left"
    codes = Counter[str]()
    for code, count in counts.branches.items():
        # A tool may give any number for a code.
        codes[CODES.get(code, StatusCode.UNKNOWN).name.lower()] += count
    return {
        "llmesh_fan_outs_running": {(): counts.running},
        "llmesh_fan_out_branches_open": {(): legs.count},
        "llmesh_fan_out_connections": {(): legs.lines.count},
        "llmesh_fan_out_held_bytes": {(): legs.room.held_bytes},
        "llmesh_fan_outs": {(name,): counts.ended[end] for end, name in ends.items()},
        "llmesh_fan_out_branches": {(code,): count for code, count in codes.items()},
    }


def _by_process(processes: Sequence[ChildState]) -> Mapping[str, Series]:
    return {
        "llmesh_process_runs": {(each.name,): each.state is Condition.RUNNING for each in processes},
        "llmesh_process_restarts": {(each.name,): each.restarts for each in processes},
    }


def documented() -> Iterable[tuple[str, str, str]]:
    """Name, labels and meaning of every figure of the gateway's."""
    for name, figure in FIGURES.items():
        ending = "_total" if figure.kind == "counter" else ""
        yield f"{name}{ending}", ", ".join(figure.labels), figure.text
    yield from ((name, "", text) for name, text in PROCESS.items())
