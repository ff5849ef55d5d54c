"""How many labelled questions the passages answer that are found first: by words alone, and by meanings too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.figures import Figure
from tests.search.library import MODEL, library, meanings_of, recall_of


def measure() -> list[Figure]:
    """The figures; of meanings where there is a model server's environment."""
    with tempfile.TemporaryDirectory(prefix="library-") as cache:
        index = library(Path(cache))
        figures = [Figure("docs_recall5_words", recall_of(index), "")]
        if MODEL.exists():
            figures.append(Figure("docs_recall5_hybrid", recall_of(index, meanings_of(index)), ""))
    return figures
