"""How callers are told that the engine failed, or refuses their input."""

from __future__ import annotations

from llmesh.errors import InvalidCall, Unavailable, Violation

__all__ = ["dead", "failed", "wrong"]

RETRY_DEAD_S = 5.0
RETRY_FAILED_S = 1.0


def dead() -> Unavailable:
    """The engine has ended, with all that it wrote."""
    words = "the model's engine ended; it is started again"
    return Unavailable(words, retry_after_s=RETRY_DEAD_S, reason="ENGINE_DIED")


def failed() -> Unavailable:
    """The engine lives, and this text has failed alone."""
    return Unavailable("the engine gave up this text", retry_after_s=RETRY_FAILED_S, reason="ENGINE_FAILED")


def wrong(field: str, words: str, *, reason: str) -> InvalidCall:
    """A field of the request cannot be what it is. words: why."""
    return InvalidCall(f"`{field}`: {words}", [Violation(field, words)], reason=reason)
