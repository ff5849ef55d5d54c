"""What the gateway says of its mesh in `llmesh status`: versions, policy, what is refused and who is to be told."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.text import Text

from llmesh.admin import STATUS_PAGE, ask_socket
from llmesh.cli import show
from llmesh.home import Home

DIGEST_SHOWN = 12


class _Part(BaseModel):
    # A gateway of another version may tell more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Versions(_Part):
    """Of what runs."""

    ll_mesh: str
    python: str


class Policy(_Part):
    """The policy in force, why its files are not, and which issuers' keys could not be fetched again."""

    digest: str
    error: str
    stale_keys: list[str] = []


class CatalogFacts(_Part):
    """What is on the mesh."""

    version: int
    tools: int
    contracts: int


class Refused(_Part):
    """An endpoint, or one of its services, that is not let in."""

    address: str
    service: str
    reason: str
    message: str
    owner: str
    contact: str


class Nack(_Part):
    """A resource that Envoy refuses."""

    resource: str
    words: str
    owner: str
    contact: str


class MeshFile(_Part):
    """The mesh file. error: why it is not taken up; empty if it is."""

    error: str


class Records(_Part):
    """The decision records. error: why none are kept at present. lost: whether some calls have none for good.

    shortened: whether some were deleted before their time.
    """

    error: str = ""
    unread_bytes: int = 0
    lost: bool = False
    shortened: bool = False
    disputed: int = 0


class Blocks(_Part):
    """What is blocked. error: why nothing can be blocked or unblocked at present."""

    in_force: int = 0
    error: str = ""


class Facts(_Part):
    """Everything the gateway tells. envoys: that are connected to it. unkept: what is not on disk -> why."""

    operations: str = ""
    traces: str = ""
    versions: Versions
    policy: Policy
    mesh_file: MeshFile
    records: Records = Records()
    blocks: Blocks = Blocks()
    envoys: int = 1
    unkept: dict[str, str] = {}
    catalog: CatalogFacts
    endpoints: dict[str, int]
    held: list[str]
    refused: list[Refused]
    nacks: list[Nack]


@dataclass(frozen=True, slots=True)
class Told:
    """What the gateway told, as it told it, and which Envoy runs; empty if that does not answer."""

    facts: dict[str, object]
    envoy: str

    def read(self) -> Facts:
        """What was told. It was checked when it came."""
        return Facts.model_validate(self.facts)


def ask_gateway(home: Home) -> Told | None:
    """What the gateway of this directory tells; None if it doesn't answer."""
    page = ask_socket(home.operations_socket, STATUS_PAGE)
    try:
        facts = json.loads(page or b"null")
        Facts.model_validate(facts)
    except (ValueError, ValidationError):
        return None
    return Told(facts, _envoy_version(ask_socket(home.admin_socket, "/server_info")))


def _envoy_version(page: bytes | None) -> str:
    """The version in Envoy's words: "hash/1.40.0/Clean/RELEASE/BoringSSL"."""
    try:
        return str(json.loads(page or b"")["version"]).split("/")[1]
    except (ValueError, LookupError, TypeError):
        return ""


def print_places(console: Console, told: Told | None, *, logs: str) -> None:
    """Where to look further."""
    console.print(f"logs: {logs}", markup=False)
    if told is None:
        return
    facts = told.read()
    if facts.operations:
        console.print(f"figures and health: http://{facts.operations}/metrics, /livez, /readyz", markup=False)
    if facts.traces:
        console.print(f"traces: to {facts.traces}", markup=False)
    versions = [f"ll-mesh {facts.versions.ll_mesh}", f"Envoy {told.envoy or 'does not answer'}"]
    console.print(", ".join([*versions, f"Python {facts.versions.python}"]), markup=False)


def print_gateway(console: Console, told: Told | None) -> None:
    """The policy, the catalog, and what is refused; that the gateway is away, where it is."""
    if told is None:
        console.print("[red]the gateway does not answer[/]")
        return
    facts = told.read()
    counted = ", ".join(f"{count} {state}" for state, count in facts.endpoints.items() if count) or "none"
    held = f", {len(facts.held)} held though its source no longer names it" if facts.held else ""
    if facts.mesh_file.error:
        said = f"the mesh file is refused, the endpoints it last named stay in force: {facts.mesh_file.error}"
        console.print(Text(said, style="red"))
    if not facts.envoys:
        console.print("[red]Envoy has no connection to the gateway:[/] calls go on, and nothing new is taken up")
    for what, error in facts.unkept.items():
        said = f"{what} cannot be kept, calls go on: a gateway that begins anew would not know the newest: {error}"
        console.print(Text(said, style="red"))
    _print_records(console, facts.records)
    _print_blocks(console, facts.blocks)
    console.print(f"policy: {facts.policy.digest[:DIGEST_SHOWN]}")
    for words in facts.policy.stale_keys:
        console.print(Text(f"{words}; those from before are in force", style="red"))
    console.print(f"catalog: version {facts.catalog.version}, {_several(facts.catalog.tools, 'tool')}", end=", ")
    console.print(f"{_several(facts.catalog.contracts, 'contract')}; endpoints: {counted}{held}")
    if facts.refused:
        rows = show.table("refused", "reason", "whose", "why")
        for each in facts.refused:
            rows.add_row(*map(Text, (each.service or each.address, each.reason, _whose(each), each.message)))
        console.print()
        console.print(rows)
    if facts.nacks:
        rows = show.table("refused by Envoy", "whose", "Envoy's words")
        for each in facts.nacks:
            rows.add_row(*map(Text, (each.resource, _whose(each), each.words)))
        console.print()
        console.print(rows)


def _print_records(console: Console, records: Records) -> None:
    """What is wrong with the records, where something is."""
    behind = f", {records.unread_bytes} bytes of the call log behind" if records.unread_bytes else ""
    said = [f"no records are kept{behind}, calls go on: {records.error}"] if records.error else []
    if records.lost:
        said.append("records are missing: the call log was put aside and deleted before it was read")
    if records.shortened:
        said.append("records were deleted before their time: there are more than `records.keep_at_most` of mesh.yaml")
    if records.disputed:
        said.append(
            f"{_several(records.disputed, 'call')} ended otherwise than the rules say: the gateway's log says which"
        )
    for each in said:
        console.print(Text(each, style="red"))


def _print_blocks(console: Console, blocks: Blocks) -> None:
    """That something is blocked, where it is."""
    if blocks.in_force:
        console.print(f"[yellow]{_several(blocks.in_force, 'block')} in force[/]: see llmesh blocks")
    if blocks.error:
        said = f"nothing can be blocked or unblocked, what is blocked stays so: {blocks.error}"
        console.print(Text(said, style="red"))


def _whose(refused: Refused | Nack) -> str:
    return ", ".join(filter(None, (refused.owner, refused.contact))) or "nobody's"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
