"""The model server's own embedder behind a pipe: `python -m tests.bench.embedding`, in the environment of `make model`.

Each line of its input is a list of texts, as JSON; each line of its output, their vectors.
"""

from __future__ import annotations

import asyncio
import json
import sys

from model_server.embedder import start_embedder
from model_server.packaged import PACKAGED_ID, packaged_embeddings
from model_server.source import find_source


async def main() -> None:
    """Answer line by line until there are no more."""
    embedder = await start_embedder(find_source(str(packaged_embeddings()), "", id=PACKAGED_ID))
    while line := await asyncio.to_thread(sys.stdin.readline):
        made = await embedder.embed(json.loads(line), reader="")
        sys.stdout.write(json.dumps([list(each) for each in made]) + "\n")
        sys.stdout.flush()
    await embedder.close()


if __name__ == "__main__":
    asyncio.run(main())
