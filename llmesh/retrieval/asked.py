"""What is asked, by what it means as far as that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmesh.retrieval.nearest import Nearest, Vector

__all__ = ["Asked", "Meaning"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """A query's vector, and the index that it is compared with: of one model."""

    vector: Vector
    index: Nearest


@dataclass(frozen=True, slots=True)
class Asked:
    """A query's meaning; None to go by words alone.

    words_alone: why, or of what passages; for people. Empty if it is compared with the meanings of all passages.
    """

    meaning: Meaning | None = None
    words_alone: str = ""

    @property
    def provenance(self) -> Mapping[str, str]:
        """What the answer rests on besides, for `Call.cite`."""
        return {"model": self.meaning.index.model} if self.meaning else {}
