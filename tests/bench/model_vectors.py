"""The program of .venv-model that makes vectors, in single precision and in bfloat16, and says how the two compare."""

from __future__ import annotations

import json
import statistics
import time

from sentence_transformers import SentenceTransformer

from model_server.embedder import BATCH, vectors
from model_server.packaged import packaged_embeddings

ROUNDS = 5
TEXT = (
    "The mesh finds every tool by its contract and asks the rules whether a call may be made. A ticket says what went "
    "wrong, when it did and what was tried. Bread is baked from flour, salt, water and time."
)


def main() -> None:
    """Print bfloat16's rate as a multiple of the other's, the median of rounds; and the least cosine of the two."""
    model = SentenceTransformer(str(packaged_embeddings()), local_files_only=True)
    texts = [TEXT[at : at + 100] for at in range(BATCH)]
    whole, narrow = _timed(model, texts, narrow=False)[1], _timed(model, texts, narrow=True)[1]
    cosines = [sum(map(float.__mul__, one, other)) for one, other in zip(whole, narrow, strict=True)]
    ratios = [_timed(model, texts, narrow=False)[0] / _timed(model, texts, narrow=True)[0] for _ in range(ROUNDS)]
    print(json.dumps([statistics.median(ratios), min(cosines)]))  # noqa: T201 its answer


def _timed(model: SentenceTransformer, texts: list[str], *, narrow: bool) -> tuple[float, list[list[float]]]:
    began_s = time.monotonic()
    found = vectors(model, texts, narrow=narrow)
    return time.monotonic() - began_s, found


if __name__ == "__main__":
    main()
