"""How often what people ask finds a tool that serves it, and what a search costs.

The labelled questions and the mesh are those of tests/search, the vectors the
model server's own. What is timed is the search, the query's vector at hand.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gateway.catalog import CatalogBoard, Tool
from gateway.clock import SystemClock
from gateway.search.index import Entry, Index
from gateway.search.learner import Learner
from gateway.search.searcher import Searcher
from gateway.search.texts import meanings_of, words_of
from gateway.search.vectors import key_of, read
from governance.words import Caller
from llmesh.embedding import MODELS, Embedded
from tests.bench.figures import Figure
from tests.model_server.models import PYTHON
from tests.search.asked import REPO, Question, mesh, questions, recall

FIRST = 5
# Of each tool, for a mesh of 10,000.
COPIES = 5
CALLER = Caller(issuer="bench", subject="ada")


def measure() -> list[Figure]:
    """The figures. Raises FileNotFoundError where `make model` has not been run."""
    with TemporaryDirectory() as folder, _embedder() as embedder:
        return asyncio.run(_figures(embedder, Path(folder)))


async def _figures(embedder: _Embedder, folder: Path) -> list[Figure]:
    asked, tools = questions("tools"), mesh()
    entries = {name: _entry(tool) for name, tool in tools.items()}
    learner = Learner(embedder.embed, folder / "tools.vectors")
    await learner.learn(entries.values())
    made = await embedder.embed([each.ask for each in asked])
    meant = dict(zip((each.ask for each in asked), made.vectors, strict=True))
    many = {
        f"{name}{copy}": replace(tool, service=f"{name}{copy}")
        for name, tool in tools.items()
        for copy in range(COPIES)
    }
    model = {MODELS: replace(next(iter(tools.values())), service=MODELS)}
    words = await _searched(asked, tools, learner, meant)
    both = await _searched(asked, tools | model, learner, meant)
    large = await _searched(asked, many | model, learner, meant)
    wordless = {name: replace(entry, words={}) for name, entry in entries.items()}
    index = Index(wordless, await learner.vectors())
    everything = np.ones(len(entries), dtype=np.bool_)

    def by_meaning(ask: str) -> list[str]:
        return [name for name, _ in index.rank(ask, everything, read([meant[ask]])[0])[:FIRST]]

    return [
        Figure("toolsearch_recall5_hybrid", recall(asked, both.first.__getitem__), "share", 0.9, ">="),
        Figure("toolsearch_recall5_words", recall(asked, words.first.__getitem__), "share"),
        Figure("toolsearch_recall5_meanings", recall(asked, by_meaning), "share"),
        Figure("toolsearch_2000_cpu_ms", both.cpu_ms, "CPU-ms"),
        Figure("toolsearch_10000_cpu_ms", large.cpu_ms, "CPU-ms"),
    ]


def _entry(tool: Tool) -> Entry:
    return Entry(words_of(tool), {key_of(text): text for text in meanings_of(tool)})


@dataclass(frozen=True, slots=True)
class _Searched:
    """What each question found first, and the CPU time of a search, the median."""

    first: Mapping[str, list[str]]
    cpu_ms: float


async def _searched(
    asked: Sequence[Question], tools: Mapping[str, Tool], learner: Learner, meant: Mapping[str, Sequence[float]]
) -> _Searched:
    """Ask a mesh of these tools; one without the model server goes by words alone."""
    board = CatalogBoard()
    await board.post(tools, {})
    clock, model = SystemClock(), (await learner.vectors()).model
    searcher = Searcher(lambda: board.current, _all_seen, learner, rules=lambda: None, clock=clock, unsearched={MODELS})

    async def embed(query: str) -> Embedded:
        return Embedded(model, [meant[query]])

    # The first one makes the index.
    await searcher.search(CALLER, asked[0].ask, embed)
    first, times = dict[str, list[str]](), list[float]()
    for each in asked:
        before = time.process_time()
        found = await searcher.search(CALLER, each.ask, embed)
        times.append(time.process_time() - before)
        first[each.ask] = [name for name, _ in found.hits[:FIRST]]
        assert bool(found.words_alone) == (MODELS not in tools)
    return _Searched(first, 1000 * statistics.median(times))


def _all_seen(tool: Tool, _: Caller) -> Tool:
    return tool


@dataclass(frozen=True, slots=True)
class _Embedder:
    """The model server's embedder, in a process of its environment."""

    process: subprocess.Popen[str]

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Their vectors."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(list(texts)) + "\n")
        self.process.stdin.flush()
        return Embedded("packaged", json.loads(self.process.stdout.readline()))


@contextmanager
def _embedder() -> Generator[_Embedder]:
    argv = (str(PYTHON), "-m", "tests.bench.embedding")
    with subprocess.Popen(argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _Embedder(process)
