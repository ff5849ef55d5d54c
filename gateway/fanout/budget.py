"""How a fan-out's time is split. Pure; all in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.snapshot.fanout import DEFAULT_S

__all__ = ["Budget", "split"]

# Of the time there is, what is kept to answer; but no more than it ever takes.
KEPT_SHARE = 0.1
KEPT_MOST_S = 0.1
# Of what is kept, how much later than the fan-out Envoy ends a branch: that both would end it is no haste.
_LATER_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Budget:
    """branch_s: what branches get, more than 0. kept_s: what stays to answer."""

    branch_s: float
    kept_s: float

    @property
    def call_s(self) -> float:
        """What tools are told, and when Envoy ends what nobody has."""
        return self.branch_s + self.kept_s * _LATER_SHARE


def split(remaining_s: float | None) -> Budget:
    """The split of what remains of the caller's deadline, more than 0; None if the caller states none."""
    whole_s = DEFAULT_S if remaining_s is None else remaining_s
    kept_s = min(whole_s * KEPT_SHARE, KEPT_MOST_S)
    return Budget(whole_s - kept_s, kept_s)
