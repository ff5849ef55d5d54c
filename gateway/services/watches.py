"""What those who watch the catalog are told: made once for all of them, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from gateway.blocks.words import Block
from gateway.catalog import Tool
from gateway.services.messages import tool_message
from gateway.services.visible import Seen
from governance.words import Caller
from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.errors import OverQuota

# Of one caller.
WATCHES_AT_ONCE = 64
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Told:
    """A tool's message. tool, blocked: what it was made of."""

    tool: Tool
    blocked: Mapping[str, Block]
    message: pb.Tool


class Watches:
    """The watches that are open, and the messages that any of them holds."""

    def __init__(self) -> None:
        """Nobody watches yet."""
        self._open: Counter[tuple[str, str]] = Counter()
        # A message stays for as long as some watch holds it, or has it to send.
        self._told: WeakValueDictionary[tuple[str, frozenset[str]], Told] = WeakValueDictionary()

    @contextmanager
    def one_more(self, caller: Caller) -> Generator[None]:
        """A watch of the caller's lasts as long as the block. Raises OverQuota if it has too many."""
        key = (caller.issuer, caller.subject)
        if self._open[key] >= WATCHES_AT_ONCE:
            message = f"{WATCHES_AT_ONCE} watches of yours are open: end one, or share one between those who watch"
            raise OverQuota(message, retry_after_s=RETRY_AFTER_S, quota="watches of a caller")
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def told(self, seen: Seen) -> Told:
        """The tool's message, made again only if something of it can have changed."""
        key = (seen.tool.service, seen.permitted)
        told = self._told.get(key)
        if told is None or told.tool is not seen.tool or told.blocked != seen.blocked:
            told = self._told[key] = Told(seen.tool, seen.blocked, tool_message(seen))
        return told
