"""Vectors of texts, as the model server makes them: `.venv-model/bin/python -m tests.search.embed`.

A JSON list of texts on stdin; a row of numbers for each on stdout, as numpy saves them.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Sequence

import numpy as np


async def _embed(texts: Sequence[str]) -> list[Sequence[float]]:
    from model_server.embedder import BATCH, start_embedder
    from model_server.packaged import packaged_embeddings
    from model_server.source import find_source

    embedder = await start_embedder(find_source(str(packaged_embeddings()), ""))
    # Those of one length together: a batch takes as long as its longest.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    found: dict[int, Sequence[float]] = {}
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        found |= zip(places, await embedder.embed([texts[at] for at in places], reader=""), strict=True)
    await embedder.close()
    return [found[at] for at in range(len(texts))]


def main() -> None:
    """Embed what stdin says."""
    vectors = asyncio.run(_embed(json.load(sys.stdin)))
    saved = io.BytesIO()
    np.save(saved, np.array(vectors, dtype=np.float32))
    sys.stdout.buffer.write(saved.getvalue())


if __name__ == "__main__":
    main()
