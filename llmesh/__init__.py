"""LL-Mesh for tool teams and client teams: serve a tool, call one."""

__all__ = [
    "AlreadyExists",
    "Branch",
    "Call",
    "Caller",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "Denied",
    "FailedPrecondition",
    "FanOut",
    "Gathered",
    "InvalidCall",
    "Mesh",
    "MeshError",
    "NotFound",
    "OverQuota",
    "OwnMesh",
    "Prompt",
    "PromptError",
    "Readiness",
    "ServeError",
    "Server",
    "Tls",
    "ToolFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "current_call",
    "serve",
]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmesh._client import Mesh
    from llmesh._own_mesh import OwnMesh
    from llmesh._server import Server, serve
    from llmesh._services import ServeError
    from llmesh._tls import Tls
    from llmesh.branch import Branch
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
    from llmesh.fanout import FanOut, Gathered
    from llmesh.prompt import Prompt, PromptError
    from llmesh.readiness import Readiness
else:
    # Loaded when first used: gRPC alone takes a quarter of a second, in which the command line
    # could neither show its help nor be interrupted in silence.
    _MODULES = {"Mesh": "_client", "Server": "_server", "serve": "_server", "ServeError": "_services", "Tls": "_tls"}
    _MODULES |= {"OwnMesh": "_own_mesh"}
    _MODULES |= {"Call": "call", "current_call": "call", "Caller": "caller"}
    _MODULES |= {"Branch": "branch", "FanOut": "fanout", "Gathered": "fanout", "Readiness": "readiness"}
    _MODULES |= {"Prompt": "prompt", "PromptError": "prompt"}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in __all__:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        found = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
