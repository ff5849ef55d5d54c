"""Where the platform's own .proto files are, for tools' contracts to import.

protoc $(llmesh contract includes) -I protos --python_out=. protos/acme/hello/v1/hello.proto
"""

from __future__ import annotations

__all__ = ["proto_folders"]

from pathlib import Path

_PACKAGE = Path(__file__).parent


def proto_folders() -> tuple[Path, ...]:
    """Folders to give protoc with -I. They hold llmesh/api/**, and buf/validate/validate.proto."""
    installed = _PACKAGE / "protos"
    if installed.is_dir():
        return (installed,)
    checkout = _PACKAGE.parent
    return (checkout / "protos", checkout / "third_party")
