"""What a source says is gone, and what of it stays named all the same.

Endpoints go one by one, or are given back by whoever stops them. Where most of
them vanish at once it is more likely we who are wrong: a gateway that heard no
renewals, a file half written. Taking them all away would fail every call, and
keeping them costs nothing, since Envoy calls none that doesn't answer.
"""

from __future__ import annotations

__all__ = ["HOLD_S", "LEAST", "WINDOW_S", "Hold"]

# A mass disappearance: more than half of what was named, and at least LEAST, within WINDOW_S.
WINDOW_S = 10.0
LEAST = 4
# Nobody says that they are really gone, so time does.
HOLD_S = 600.0


class Hold:
    """The addresses that one source no longer names and that are kept. Pure: moments, in seconds, are passed in."""

    def __init__(self, *, waits: bool) -> None:
        """waits: whether the source tells of one after another, so that each waits a WINDOW_S to see if more follow."""
        self._wait_s = WINDOW_S if waits else 0.0
        # What the source named last.
        self.named: frozenset[str] = frozenset()
        # Address -> since when it is no longer named.
        self._waiting: dict[str, float] = {}
        self._held: dict[str, float] = {}

    @property
    def held(self) -> frozenset[str]:
        """Addresses that vanished in a mass, and are kept."""
        return frozenset(self._held)

    @property
    def kept(self) -> frozenset[str]:
        """Addresses to be named beside those that the source names."""
        return frozenset(self._waiting) | self.held

    def see(self, named: frozenset[str], *, now_s: float, released: frozenset[str] = frozenset()) -> bool:
        """Take in what the source names now. released: given back on purpose. Whether a mass vanished."""
        self.pass_time(now_s)
        for address in named | released:
            self._waiting.pop(address, None)
            self._held.pop(address, None)
        for address in self.named - named - released:
            self._waiting[address] = now_s
        self.named = named
        # Newcomers count: they may be there instead.
        mass = len(self._waiting) >= LEAST and len(self._waiting) > len(named)
        if mass:
            self._held |= self._waiting
            self._waiting = {}
        self.pass_time(now_s)
        return mass

    def pass_time(self, now_s: float) -> None:
        """Let go of what has been kept for long enough."""
        self._waiting = {each: since_s for each, since_s in self._waiting.items() if now_s < since_s + self._wait_s}
        self._held = {each: since_s for each, since_s in self._held.items() if now_s < since_s + HOLD_S}

    def next_s(self) -> float | None:
        """When time alone will change something; None: it won't."""
        ends = [since_s + self._wait_s for since_s in self._waiting.values()]
        return min([*ends, *(since_s + HOLD_S for since_s in self._held.values())], default=None)
