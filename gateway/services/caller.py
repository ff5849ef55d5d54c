"""Who calls the gateway's own services."""

from __future__ import annotations

from governance.words import Caller
from llmesh.call import current_call


def current_caller() -> Caller:
    """The caller of the call being served, in the words of policy."""
    caller = current_call().caller
    return Caller(
        issuer=caller.issuer,
        subject=caller.subject,
        roles=tuple(caller.roles),
        domain=caller.domain,
        clearances=tuple(caller.clearances),
        actor=caller.actor,
    )
