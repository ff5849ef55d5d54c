"""LL-Mesh for tool teams and client teams: serve a tool, call one."""

__all__ = [
    "AlreadyExists",
    "Call",
    "Caller",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "Denied",
    "FailedPrecondition",
    "InvalidCall",
    "Mesh",
    "MeshError",
    "NotFound",
    "OverQuota",
    "ServeError",
    "Server",
    "ToolFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "current_call",
    "serve",
]

from llmesh._client import Mesh
from llmesh._server import Server, serve
from llmesh._services import ServeError
from llmesh.call import Call, current_call
from llmesh.caller import Caller
from llmesh.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    InvalidCall,
    MeshError,
    NotFound,
    OverQuota,
    ToolFailed,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
