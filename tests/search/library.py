"""The documentation of the standard library, and the questions that are asked of it: by words, and by meanings too."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmesh.retrieval.asked import Asked, Meaning
from llmesh.retrieval.nearest import Nearest, Vector
from llmesh.retrieval.vectors import key_of
from tests.search.asked import REPO, questions, recall

# The tool's folder is the path root of its packages.
sys.path.append(str(REPO / "tools/engineering/doc_search"))

from doc_search.cache import load_or_build

if TYPE_CHECKING:
    from doc_search.index import Index

MODEL = REPO / ".venv-model/bin/python"
FIRST = 5


def library(cache: Path) -> Index:
    """Its index, in the folder cache."""
    return load_or_build(cache)


def recall_of(index: Index, asked: Callable[[str], Asked] = lambda _: Asked()) -> float:
    """The share of the questions that the first five passages answer. asked: what each means."""

    def found(query: str) -> Sequence[str]:
        return [hit.passage.name for hit in index.search(query, limit=FIRST, filters=[], asked=asked(query))]

    return recall(questions("docs"), found)


def meanings_of(index: Index) -> Callable[[str], Asked]:
    """What each question means, by the real model; takes it a minute or two."""
    texts, asked = index.meant.texts, [each.ask for each in questions("docs")]
    rows = _embed([*texts.values(), *asked])
    nearest = Nearest.build("the packaged one", dict(zip(texts, rows, strict=False)))
    vectors = {key_of(query): row for query, row in zip(asked, rows[len(texts) :], strict=True)}
    return lambda query: Asked(Meaning(vectors[key_of(query)], nearest))


def _embed(texts: Sequence[str]) -> Vector:
    command = (str(MODEL), "-m", "tests.search.embed")
    ran = subprocess.run(command, cwd=REPO, input=json.dumps(texts).encode(), stdout=subprocess.PIPE, check=True)
    return np.load(io.BytesIO(ran.stdout))
