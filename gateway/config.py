"""The gateway's settings, read once by __main__ and passed down.

Precedence: flags, then LLMESH_* variables, then the mesh file, then defaults.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.policy import is_loopback
from llmesh.mesh_file import LimitSettings


class Config(BaseModel):
    """Everything the gateway is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="the mesh directory")
    mesh_file: Path = Field(description="the mesh file: address, policies, endpoints")
    host: str = Field("127.0.0.1", description="address of the mesh port; loopback until the port has TLS")
    port: int = Field(8700, ge=1, le=65535, description="the mesh port")
    policies: Path = Field(description="folder of the policy files")
    limits: LimitSettings = Field(LimitSettings(), description="what nobody may exceed")

    @field_validator("host")
    @classmethod
    def _stays_on_this_machine(cls, host: str) -> str:
        if not is_loopback(host):
            raise ValueError(
                f"`{host}` is reachable from other machines, and the mesh port has no TLS yet; listen on 127.0.0.1"
            )
        return host
