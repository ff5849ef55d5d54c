"""How a fan-out's time is split. Pure; all in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.snapshot.fanout import DEFAULT_S

__all__ = ["Budget", "split"]

# Of the time there is, what is kept to answer; but no more than it ever takes. In the last of it, a third to a
# half, the SDK ends every stream of answers.
KEPT_SHARE = 0.15
KEPT_MOST_S = 0.2


@dataclass(frozen=True, slots=True)
class Budget:
    """branch_s: what branches get, more than 0. kept_s: what stays to answer."""

    branch_s: float
    kept_s: float

    @property
    def whole_s(self) -> float:
        """All there is."""
        return self.branch_s + self.kept_s


def split(remaining_s: float | None) -> Budget:
    """The split of what remains of the caller's deadline, more than 0; None if the caller states none."""
    whole_s = DEFAULT_S if remaining_s is None else remaining_s
    kept_s = min(whole_s * KEPT_SHARE, KEPT_MOST_S)
    return Budget(whole_s - kept_s, kept_s)
