"""Whom a call is for, by whom the model server tells apart what callers have of what all share."""

from __future__ import annotations

from llmesh.call import current_call

__all__ = ["reader"]


def reader() -> str:
    """The caller of the current call: another word for each."""
    caller = current_call().caller
    return f"{caller.issuer} {caller.subject}"
