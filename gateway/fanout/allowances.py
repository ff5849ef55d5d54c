"""How often what harms others may be done: branches broken off young, and branches sent again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["YOUNG_S", "Allowance", "resets", "retries"]


@dataclass(slots=True)
class Allowance:
    """A bucket that is full at first. Each branch that ends by itself adds a share, each use takes one."""

    most: float
    share: float
    left: float

    @property
    def allows(self) -> bool:
        """Whether it may be done once more."""
        return self.left >= 1

    def earn(self) -> None:
        """One branch more has ended by itself."""
        self.left = min(self.most, self.left + self.share)

    def use(self) -> bool:
        """Whether it may be done once more; then it counts as done."""
        if not self.allows:
            return False
        self.left -= 1
        return True


# Envoy closes a connection, and with it all branches of its caller, once more than half of the streams that it has seen
# there, 500 or more, were broken off young: before an answer, in their first two seconds (the runtime's
# overload.premature_reset_total_stream_count and _min_stream_lifetime_seconds, counted in whole seconds, Envoy 1.40).
# With this allowance, of the first 500 streams at most 220 can be, whenever the connection began. Envoy's clock starts
# a little later than ours.
YOUNG_S = 2.5
RESET_MOST, RESET_SHARE = 150.0, 0.25
# As Envoy has it for one tool (snapshot/service.py).
RETRY_MOST, RETRY_SHARE = 64.0, 0.2


def resets() -> Allowance:
    """Of branches that are broken off while they are young, on one connection."""
    return Allowance(RESET_MOST, RESET_SHARE, RESET_MOST)


def retries() -> Allowance:
    """Of branches that are sent again, by one gateway."""
    return Allowance(RETRY_MOST, RETRY_SHARE, RETRY_MOST)
