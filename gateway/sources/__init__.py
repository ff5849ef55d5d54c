"""Where endpoints come from: one module per kind of source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from gateway.catalog import Endpoint

__all__ = ["Source"]


class Source(Protocol):
    """Names endpoints, for one reader."""

    def watch(self) -> AsyncIterator[frozenset[Endpoint]]:
        """All endpoints it knows, then all of them again after each change.

        The first one says that the source has synced: from then on what it
        does not name is gone.
        """
        ...
