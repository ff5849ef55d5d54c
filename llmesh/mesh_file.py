"""The mesh file: what a mesh on one machine consists of.

`llmesh up` starts its processes, the gateway reads its endpoints.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, model_validator

from llmesh.document import Document, DocumentError, parse_document

__all__ = [
    "MODEL_SERVER",
    "EndpointEntry",
    "MeshFile",
    "ModelSettings",
    "ProcessEntry",
    "ServiceEntry",
    "TlsSettings",
    "ToolTlsSettings",
    "join_host_port",
    "read_mesh_file",
    "split_host_port",
]

HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
PORT_MAX = 65535
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
UNIX = "unix:"
# What the model server's process is called.
MODEL_SERVER = "model_server"


def split_host_port(address: str) -> tuple[str, int]:
    """The IP address, without brackets, and the port. Raises ValueError for anything but IP:port.

    `localhost` is 127.0.0.1. Other names are refused: Envoy takes only IP addresses.
    """
    match = HOST_PORT.fullmatch(address)
    if match is None or int(match["port"]) > PORT_MAX:
        raise ValueError(f"`{address}` is not an address: write host:port")
    host = match["host"].strip("[]")
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), int(match["port"])
    except ValueError as err:
        raise ValueError(f"`{host}` is not an IP address, and host names are not looked up yet: write its IP") from err


def join_host_port(host: str, port: int) -> str:
    """The address of an IP address and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_listen(address: str, info: ValidationInfo) -> str:
    host, port = split_host_port(address)
    # A section that is wrong is not among the data, and told by itself.
    if not ipaddress.ip_address(host).is_loopback and info.data.get("tls", True) is None:
        raise ValueError(
            f"`{host}` is reachable from other machines, and tokens would travel there in the clear: "
            "name a certificate and a key under `tls`, or listen on 127.0.0.1"
        )
    return join_host_port(host, port)


def _check_address(address: str) -> str:
    host, port = split_host_port(address)
    if port == 0:
        raise ValueError(f"`{address}` names no port")
    return join_host_port(host, port)


def _check_reached(address: str) -> str:
    match = HOST_PORT.fullmatch(address)
    if address and (match is None or not 0 < int(match["port"]) <= PORT_MAX):
        raise ValueError(f"`{address}` is not an address: write host:port")
    return address


def _check_operations(address: str) -> str:
    return _check_address(address) if address else ""


def _check_endpoint(address: str) -> str:
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX)
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f"`{address}` is not an address: write unix:/absolute/path.sock")
        return address
    return _check_address(address)


class Entry(Document):
    """A part of the file: no silent conversions."""

    model_config = ConfigDict(strict=True)


class ProcessEntry(Entry):
    """A process that `llmesh up` starts and keeps running."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="what it is called in commands and logs")
    folder: Path = Field(strict=False, description="where it runs; relative to the mesh file")
    command: tuple[str, ...] = Field(
        (), strict=False, description="what to run; none means the folder's own module: python -m <folder's name>"
    )
    background: bool = Field(
        default=False, description="whether the mesh is up without it; it begins once the others answer"
    )

    @property
    def module(self) -> str:
        """The module that is run if there is no command: the one named like the folder."""
        return self.folder.name


class ServiceEntry(Entry):
    """What the mesh holds of a service whose contract carries no LL-Mesh options."""

    service: str = Field(pattern=rf"^{IDENTIFIER}(\.{IDENTIFIER})*$", max_length=255, description="its full name")
    domain: str = Field(min_length=1, description="the domain that owns it; must be the owner of its package")
    owner_team: str = Field(min_length=1, description="who runs it")
    effects: dict[str, Literal["read", "write", "destructive"]] = Field(
        default_factory=dict[str, Literal["read", "write", "destructive"]],
        description="method -> what a call changes; a method not named is destructive",
    )


class EndpointEntry(Entry):
    """A server that the mesh finds by its address rather than by a lease."""

    address: Annotated[str, AfterValidator(_check_endpoint)] = Field(description="IP:port or unix:/absolute/path")
    services: tuple[ServiceEntry, ...] = Field((), strict=False, description="for services without LL-Mesh options")
    tls_name: str = Field(
        "",
        pattern=rf"^({LABEL}(\.{LABEL})*)?$",
        max_length=253,
        description="the DNS name in its certificate; none: it is called over plain TCP, without protection",
    )

    @model_validator(mode="after")
    def _has_a_certificate_where_it_can(self) -> Self:
        if self.tls_name and self.address.startswith(UNIX):
            raise ValueError(f"`{self.address}` is a socket of this machine, which has no certificate")
        return self


class TlsSettings(Entry):
    """What the mesh port shows its clients. Read again when the files change."""

    certificate: Path = Field(strict=False, description="PEM file: the certificate, then those that vouch for it")
    key: Path = Field(strict=False, description="PEM file of its private key")


class ToolTlsSettings(Entry):
    """What the mesh shows tools that are reached over TCP, and whose certificates it takes. Read again on change."""

    certificate: Path = Field(strict=False, description="PEM file: the mesh's own certificate as a client")
    key: Path = Field(strict=False, description="PEM file of its private key")
    authority: Path = Field(strict=False, description="PEM file: the authorities that tools' certificates must be of")


SettingsT = TypeVar("SettingsT", TlsSettings | None, ToolTlsSettings | None)


class QuotaSettings(Entry):
    """How many calls a caller may make in a second to methods of a class of cost, as contracts state it."""

    low: int = Field(default=0, ge=0, description="to methods of cost low; 0: no limit")
    medium: int = Field(default=0, ge=0, description="to methods of cost medium; 0: no limit")
    high: int = Field(default=0, ge=0, description="to methods of cost high, or that state none; 0: no limit")


class LimitSettings(Entry):
    """How much one endpoint, one caller, or one address of callers, may take of the mesh."""

    file_bytes: int = Field(default=1 << 20, ge=1024, description="largest file of a contract")
    files: int = Field(default=1024, ge=1, description="most files of an endpoint's contracts")
    endpoint_bytes: int = Field(default=8 << 20, ge=1024, description="most bytes of an endpoint's contracts together")
    definitions: int = Field(
        default=1 << 16, ge=1, description="most messages, fields, values and methods of a contract and its imports"
    )
    look_timeout_s: float = Field(
        default=10.0, gt=0, le=600, description="longest time to read an endpoint's contracts"
    )
    refused_tokens_per_s: int = Field(
        default=100,
        ge=0,
        description="how many of an address's tokens are looked at in a second and not believed; "
        "beyond that, its connections that showed one are refused until the second is over; 0: no limit",
    )
    calls_per_s: int = Field(default=0, ge=0, description="how many calls a caller may make in a second; 0: no limit")
    quotas: QuotaSettings = Field(default=QuotaSettings(), description="the same by what a call costs, for each caller")
    connections: int = Field(default=10_000, ge=1, description="of callers to the mesh port, at one time")
    looks_at_once: int = Field(default=16, ge=1, description="endpoints whose contracts are read at one time")


class LogSettings(Entry):
    """When a file in the mesh directory's logs/ is put aside for a new one."""

    rotate_bytes: int = Field(default=64 << 20, ge=1 << 16, description="the size at which it is")
    keep: int = Field(default=5, ge=1, description="how many earlier files are kept")


class RecordSettings(Entry):
    """How long decision records are kept, and how many."""

    keep_days: float = Field(default=30.0, gt=0, le=36_500, description="after which a record is deleted")
    keep_at_most: int = Field(
        default=10_000_000,
        ge=1000,
        description="records; beyond it the oldest are deleted before their time, which `llmesh status` says",
    )
    refused_per_minute: int = Field(
        default=600,
        ge=0,
        description=(
            "refused calls of a caller that have a record each, and of all together who show no identity; "
            "those beyond it are counted in one record a minute for each method, outcome and rule"
        ),
    )


class ModelSettings(Entry):
    """The model server that `llmesh up` starts in the background."""

    environment: Path = Field(
        Path(".venv-model"),
        strict=False,
        description=(
            "the folder of its Python environment, as `make model` makes it; "
            "not there, or not whole yet: it is not started"
        ),
    )
    model: str = Field(
        "", description="the model that writes: a folder, or a hub's id with a revision; none: a tiny random one"
    )
    revision: str = Field("", description="the whole commit of a hub's model")
    context_length: int = Field(0, ge=0, description="tokens that it reads and writes in one call; 0: the model's own")
    embeddings: str = Field(
        "", description="the model that makes vectors: a folder, or a hub's id; none: the one that is installed with it"
    )
    embeddings_revision: str = Field("", description="the whole commit of a hub's model")
    metrics: Annotated[str, AfterValidator(_check_operations)] = Field(
        "127.0.0.1:8702", description='where its /metrics is served, to anybody; "" for nowhere'
    )


class TraceSettings(Entry):
    """Where traces of calls go."""

    otlp: Annotated[str, AfterValidator(_check_address)] = Field(description="IP:port that takes OTLP over gRPC")
    sample_percent: float = Field(
        100.0, ge=0, le=100, description="of the calls whose caller does not say whether it traces"
    )


class MeshFile(Entry):
    """What runs on this machine, where it listens, and what the mesh finds by address."""

    # Paths are absolute if it was read from a file.

    # Before `listen`, which is judged by it.
    tls: TlsSettings | None = Field(None, description="what the mesh port shows; needed to listen beyond loopback")
    tool_tls: ToolTlsSettings | None = Field(None, description="what tools with a `tls_name` are shown")
    listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        "127.0.0.1:8700", description="the one port of the mesh"
    )
    address: Annotated[str, AfterValidator(_check_reached)] = Field(
        "", description="host:port at which tools reach the mesh port to call others; none: as it listens"
    )
    policies: Path = Field(Path("governance/policies"), strict=False, description="the folder of the policy files")
    processes: tuple[ProcessEntry, ...] = Field((), strict=False, description="what `llmesh up` starts")
    model_server: ModelSettings | None = Field(None, description="the model server; none: it is not started")
    endpoints: tuple[EndpointEntry, ...] = Field((), strict=False, description="servers known by address")
    operations: Annotated[str, AfterValidator(_check_operations)] = Field(
        "127.0.0.1:8701", description='where /metrics, /livez and /readyz are served, to anybody; "" for nowhere'
    )
    traces: TraceSettings | None = Field(None, description="where traces of calls go; none: calls are not traced")
    limits: LimitSettings = Field(LimitSettings(), description="what nobody may exceed")
    logs: LogSettings = Field(LogSettings(), description="how long logs are kept")
    records: RecordSettings = Field(RecordSettings(), description="how long decision records are kept")
    database: str = Field("", description="SQLAlchemy URL of what must last; none: SQLite in the mesh directory")

    @property
    def host(self) -> str:
        """The host it listens on; an IPv6 address without brackets."""
        return split_host_port(self.listen)[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return split_host_port(self.listen)[1]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for kind, names in (
            ("process", [*(each.name for each in self.processes), *([MODEL_SERVER] if self.model_server else [])]),
            ("endpoint", [each.address for each in self.endpoints]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{kind} `{name}` comes twice")
        return self

    @model_validator(mode="after")
    def _can_call_over_tls(self) -> Self:
        for each in self.endpoints:
            if each.tls_name and self.tool_tls is None:
                raise ValueError(
                    f"endpoint `{each.address}` has a `tls_name`: say under `tool_tls` what the mesh shows it"
                )
        return self

    def below(self, folder: Path) -> MeshFile:
        """The same with every relative path taken from the folder."""
        processes = tuple(each.model_copy(update={"folder": folder / each.folder}) for each in self.processes)
        models = self.model_server
        if models is not None:
            models = models.model_copy(update={"environment": folder / models.environment})
        changed = {"policies": folder / self.policies, "processes": processes, "model_server": models}
        return self.model_copy(
            update={**changed, "tls": _below(self.tls, folder), "tool_tls": _below(self.tool_tls, folder)}
        )


def _below(settings: SettingsT, folder: Path) -> SettingsT:
    """The same settings, their paths taken from the folder."""
    if settings is None:
        return settings
    return settings.model_copy(update={name: folder / path for name, path in settings})


def read_mesh_file(path: Path) -> MeshFile:
    """The mesh file at a path, its relative paths made absolute. Raises DocumentError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8"
        raise DocumentError(str(path), 1, f"cannot be read: {reason}") from err
    return parse_document(MeshFile, text, file=str(path)).below(path.absolute().parent)
