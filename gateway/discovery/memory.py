"""Memory that a large contract took, handed back.

The allocator keeps what was freed for later; a few contracts of megabytes,
read once, would be held for as long as the gateway runs.
"""

from __future__ import annotations

import ctypes

__all__ = ["LARGE_BYTES", "give_back"]

# What an endpoint sends from here on is worth the trouble.
LARGE_BYTES = 1 << 20


def give_back() -> None:
    """Hand free memory back to the system; blocks for milliseconds. Nothing where the C library has no way to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
