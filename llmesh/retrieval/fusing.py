"""One score of two: how much of what is asked a passage says, and how near it comes to what is meant. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flags", "Scores", "fuse"]

Flags = NDArray[np.bool_]
Scores = NDArray[np.float32]
# What all the words count for, beside a meaning that is the same. Ranks alone, as in reciprocal rank fusion, would
# have a stray word weigh as much as the whole meaning.
_WORDS = 0.5
# Of the cosine: what comes no nearer, and says no word of it, does not bear on the query at all.
_NEAR = 0.3


def fuse(shares: Scores, cosines: Scores) -> Scores:
    """Scores from 0, which is for passages that do not bear on the query, to 1.

    shares: of the words that are asked, 0 to 1. cosines: -1 to 1; NaN where the meaning is not known, and words alone
    decide.
    """
    nearness = np.where(np.isnan(cosines), shares, np.clip(cosines, 0, 1))
    scores = (nearness + _WORDS * shares) / (1 + _WORDS)
    return np.where((shares > 0) | (nearness >= _NEAR), scores, 0).astype(np.float32)
