"""How much sooner the index of passages answers than looking at all of them, and what it misses.

100,000 vectors of the usual length are a stated mixture, as so many real texts
would take a model half an hour: passages are of topics, and topics of
subjects, with as much in common as the passages of the reference tools have
by all-MiniLM-L6-v2 (see `_draw`). Queries are drawn in the same way and are
none of them. Both searches run in one process with one thread each, one query
at a time, in turn. Where half of them, or a hundredth, pass a filter, the
searches are the whole of what a tool does with a query's vector.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from llmesh.retrieval import Asked, Flags, Passages
from llmesh.retrieval.asked import Meaning
from llmesh.retrieval.nearest import Nearest, Vector
from tests.bench.figures import Figure

Search = Callable[[Vector], list[int]]

COUNT, DIMENSION, TOP = 100_000, 384, 10
QUERIES, ROUNDS = 300, 3
# Of the passages, those that pass a filter.
SHARES = {"half": 1 / 2, "hundredth": 1 / 100}
# Squared lengths of what a passage shares with all, with its subject and with its topic; the rest is its own.
SHARED, SUBJECT, TOPIC = 0.10, 0.20, 0.25
SUBJECTS, TOPICS = 200, 5_000
# One thread each. What a machine sets for older builds of OpenBLAS slows this one down.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def measure() -> list[Figure]:
    """The figures."""
    env = {name: value for name, value in os.environ.items() if name not in UNSET} | ENVIRONMENT
    ran = subprocess.run((sys.executable, "-m", __name__), env=env, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return [
        Figure("passages100k_recall10", found["recall"], "", 0.99, ">="),
        Figure("passages100k_speedup", found["exact_ms"] / found["index_ms"], "x", 30, ">="),
        Figure("passages100k_exact_ms", found["exact_ms"], "ms"),
        Figure("passages100k_index_ms", found["index_ms"], "ms"),
        Figure("passages100k_build_cpu_s", found["build_s"], "s"),
        *(
            Figure(f"passages100k_{name}_speedup", found[f"{name}_exact_ms"] / found[f"{name}_best_ms"], "x")
            for name in SHARES
        ),
    ]


def main() -> None:
    """Measure in this process, and print what was found as JSON."""
    passages, queries = _drawn()
    texts = Passages([str(at) for at in range(COUNT)])
    began_s = time.process_time()
    index = Nearest.build("a mixture", dict(zip(texts.texts, passages, strict=True)))
    build_s = time.process_time() - began_s

    def exact(query: Vector) -> list[int]:
        return _nearest(passages @ query)

    def indexed(query: Vector) -> list[int]:
        return index.near(query, TOP).tolist()

    took_ms: dict[Search, list[float]] = {exact: [], indexed: []}
    for _ in range(ROUNDS):
        for search, times in took_ms.items():
            times.append(_median_ms(search, queries[:: 1 if search is indexed else 5]))
    found = {
        "recall": statistics.mean(len({*exact(query)} & {*indexed(query)}) / TOP for query in queries),
        "exact_ms": statistics.median(took_ms[exact]),
        "index_ms": statistics.median(took_ms[indexed]),
        "build_s": build_s,
    }
    json.dump(found | _filtered(texts, index, queries), sys.stdout)


def _filtered(texts: Passages, index: Nearest, queries: Vector) -> dict[str, float]:
    """How long it takes where some pass a filter, by their share."""
    no_words, drawn = np.zeros(COUNT, dtype=np.float32), np.random.default_rng(21).random(COUNT)
    found = dict[str, list[float]]()
    for name, share in SHARES.items():
        passing = drawn < share

        def exact(query: Vector, passing: Flags = passing) -> list[int]:
            return _nearest(np.where(passing, index.vectors @ query, -1))

        def best(query: Vector, passing: Flags = passing) -> list[int]:
            return [at for at, _ in texts.best(no_words, passing, Asked(Meaning(query, index)), limit=TOP)]

        # The first one finds the passages in the index.
        best(queries[0])
        for _ in range(ROUNDS):
            for way, search in (("exact", exact), ("best", best)):
                found.setdefault(f"{name}_{way}_ms", []).append(_median_ms(search, queries[::5]))
    return {name: statistics.median(each) for name, each in found.items()}


def _nearest(cosines: Vector) -> list[int]:
    nearest = np.argpartition(-cosines, TOP)[:TOP]
    return nearest[np.argsort(-cosines[nearest])].tolist()


def _median_ms(search: Search, queries: Vector) -> float:
    times: list[float] = []
    for query in queries:
        began_s = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - began_s)
    return 1000 * statistics.median(times)


def _drawn() -> tuple[Vector, Vector]:
    """The passages and the queries."""
    random = np.random.default_rng(20)

    def directions(count: int) -> Vector:
        return _unit(random.standard_normal((count, DIMENSION), dtype=np.float32))

    shared, subjects, topics = directions(1), directions(SUBJECTS), directions(TOPICS)
    of_topic = random.integers(SUBJECTS, size=TOPICS)

    def draw(count: int) -> Vector:
        topic = random.integers(TOPICS, size=count)
        own = (1 - SHARED - SUBJECT - TOPIC) ** 0.5 * directions(count)
        own += SHARED**0.5 * shared + SUBJECT**0.5 * subjects[of_topic[topic]] + TOPIC**0.5 * topics[topic]
        return _unit(own)

    return draw(COUNT), draw(QUERIES)


def _unit(rows: Vector) -> Vector:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
