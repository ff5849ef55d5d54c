"""What people ask, and the entry they want among the first three."""

import pytest
from doc_search.index import Index

WANTED = [
    ("asyncio timeout", "asyncio.timeout"),
    ("asyncio.timeout", "asyncio.timeout"),
    ("task group", "asyncio.TaskGroup"),
    ("TaskGroup create_task", "asyncio.TaskGroup.create_task"),
    ("cancel a coroutine that takes too long", "asyncio.wait_for"),
    ("lru cache", "functools.lru_cache"),
    ("join path components", "os.path.join"),
    ("parse json string to object", "json.loads"),
    ("split string by separator", "str.split"),
    ("open", "open"),
    ("sorted", "sorted"),
    ("how do I sort a list", "list.sort"),
    ("heap push", "heapq.heappush"),
    ("sha256 hash", "hashlib.sha256"),
    ("deep copy", "copy.deepcopy"),
    ("thread pool executor", "concurrent.futures.ThreadPoolExecutor"),
    ("walk a directory tree", "os.walk"),
    ("read csv rows", "csv.reader"),
    ("quote a url", "urllib.parse.quote"),
    ("suppress exceptions", "contextlib.suppress"),
    ("shuffle list in place", "random.shuffle"),
    ("connect to sqlite", "sqlite3.connect"),
    ("decode base64", "base64.decode"),
    ("temporary directory", "tempfile.TemporaryDirectory"),
    ("square root", "math.sqrt"),
    ("the with statement", "The with statement"),
    ("lambda", "Lambdas"),
    ("operator precedence", "Operator precedence"),
]
FIRST = [
    ("asyncio timeout", "asyncio.timeout"),
    ("json.loads", "json.loads"),
    ("OPEN", "open"),
    ("with", "The with statement"),
]


@pytest.mark.parametrize(("query", "name"), WANTED, ids=[query for query, _ in WANTED])
def test_wanted_entry_is_among_the_first_three(index: Index, query: str, name: str) -> None:
    assert name in [hit.passage.name for hit in index.search(query, limit=3, filters=[])]


@pytest.mark.parametrize(("query", "name"), FIRST, ids=[query for query, _ in FIRST])
def test_named_entry_is_first(index: Index, query: str, name: str) -> None:
    assert index.search(query, limit=1, filters=[])[0].passage.name == name


def test_index_holds_the_library_once(index: Index) -> None:
    entries = {(passage.location, passage.text) for passage in index.passages}

    assert len(entries) == len(index.passages) > 5000
    kinds = {passage.kind for passage in index.passages}
    assert kinds == {"module", "class", "function", "method", "property", "topic"}


def test_scores_fall_from_at_most_one_to_above_zero(index: Index) -> None:
    scores = [hit.score for hit in index.search("read lines from a file", limit=100, filters=[])]

    assert len(scores) == 100
    assert scores == sorted(scores, reverse=True)
    assert 1 >= scores[0] > 0.5
    assert scores[-1] > 0


def test_words_that_nobody_uses_lower_the_score(index: Index) -> None:
    known, diluted = (
        index.search(query, limit=1, filters=[])[0].score for query in ("lru cache", "lru cache qqzzq zzqqz")
    )

    assert diluted < known / 2
