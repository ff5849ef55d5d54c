import pytest
from search.words import words

CASES: list[tuple[str, list[str]]] = [
    ("asyncio.timeout", ["asyncio", "timeout", "asyncio.timeout"]),
    ("TaskGroup", ["task", "group", "taskgroup"]),
    ("asyncio.TaskGroup", ["asyncio", "task", "group", "asyncio.taskgroup", "taskgroup"]),
    ("as_completed", ["completed", "as_completed"]),
    ("HTTPServer", ["http", "server", "httpserver"]),
    ("sha256", ["sha", "256", "sha256"]),
    ("__init__", ["init"]),
    ("queries, classes and tasks.", ["query", "classe", "task"]),
    ("How do I use it?", ["use"]),
    ("with", []),
    ("naïve Übung", ["naïve", "übung"]),
    ("** != \x00 _ ...", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[repr(text) for text, _ in CASES])
def test_text_is_read_as_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
