"""The gateway's settings, read once by __main__ and passed down.

Precedence: flags, then LLMESH_* variables, then the mesh file, then defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.policy import is_loopback
from llmesh.home import Home
from llmesh.mesh_file import (
    LimitSettings,
    RecordSettings,
    TlsSettings,
    ToolTlsSettings,
    TraceSettings,
    read_mesh_file,
)


class Config(BaseModel):
    """Everything the gateway is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="the mesh directory")
    mesh_file: Path = Field(description="the mesh file: address, policies, endpoints")
    host: str = Field("127.0.0.1", description="address of the mesh port; beyond loopback only with tls")
    port: int = Field(8700, ge=1, le=65535, description="the mesh port")
    address: str = Field("", description="host:port at which tools reach the mesh port; if empty, as it listens")
    tls: TlsSettings | None = Field(None, description="what the mesh port shows")
    tool_tls: ToolTlsSettings | None = Field(None, description="what tools that are called over TLS are shown")
    policies: Path = Field(description="folder of the policy files")
    operations: str = Field("", description="the operations port, IP:port; none if empty")
    traces: TraceSettings | None = Field(None, description="where traces of calls go")
    limits: LimitSettings = Field(LimitSettings(), description="what nobody may exceed")
    records: RecordSettings = Field(RecordSettings(), description="how long decision records are kept")
    database: str = Field("", description="SQLAlchemy URL of what must last; none: SQLite in the mesh directory")

    @model_validator(mode="after")
    def _stays_on_this_machine(self) -> Self:
        if self.tls is None and not is_loopback(self.host):
            raise ValueError(f"`{self.host}` is reachable from other machines: the mesh port needs `tls` there")
        return self


def read_config(home: str, mesh_file: str) -> Config:
    """The settings. Raises DocumentError, HomeError or pydantic's ValidationError."""
    path = Path(mesh_file).absolute()
    read = read_mesh_file(path)
    policies = path.parent / read.policies
    return Config(
        home=Home.find(home).path,
        mesh_file=path,
        host=read.host,
        port=read.port,
        address=read.address,
        tls=read.tls,
        tool_tls=read.tool_tls,
        policies=policies,
        operations=read.operations,
        traces=read.traces,
        limits=read.limits,
        records=read.records,
        database=read.database,
    )
