import pydoc
from pathlib import Path

import pytest
from doc_search import passages
from doc_search.index import Index
from doc_search.passages import Passage, collect, split


@pytest.fixture(scope="session")
def by_name(index: Index) -> dict[str, Passage]:
    return {passage.name: passage for passage in reversed(index.passages)}


def test_collecting_twice_gives_the_same_passages(index: Index) -> None:
    assert collect() == list(index.passages)


def test_collecting_shows_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOC_SEARCH_TEST", "a-secret-of-the-environment")
    found = collect()

    assert not [passage for passage in found if "a-secret-of-the-environment" in passage.text]
    assert not [passage for passage in found if str(Path.home()) in passage.text.split()]
    assert next(passage for passage in found if passage.name == "cgi.print_environ").text.startswith(
        "cgi.print_environ(environ=...)"
    )


def test_collecting_does_not_see_modules_of_the_folder_it_is_run_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath("json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert any(passage.name == "json.loads" for passage in collect())


SHOWN = [
    ("asyncio.timeout", "function", "asyncio", "asyncio.timeout(delay: Optional[float])"),
    ("asyncio.TaskGroup", "class", "asyncio", "asyncio.TaskGroup()"),
    ("str.split", "method", "builtins", "str.split(self, /, sep=None, maxsplit=-1)"),
    ("pathlib.PurePath.parent", "property", "pathlib", "pathlib.PurePath.parent\n"),
    ("os.path", "module", "os.path", "os.path\n"),
    ("os.path.join", "function", "os.path", "os.path.join(a, *p)"),
    ("concurrent.futures.ThreadPoolExecutor", "class", "concurrent.futures", "concurrent.futures.ThreadPoolExecutor("),
    ("Lambdas", "topic", "", "Lambdas\n"),
]


@pytest.mark.parametrize(("name", "kind", "module", "start"), SHOWN, ids=[case[0] for case in SHOWN])
def test_entry_is_shown_under_the_name_people_import(
    by_name: dict[str, Passage], name: str, kind: str, module: str, start: str
) -> None:
    found = by_name[name]

    assert (found.kind, found.module) == (kind, module)
    assert found.text.startswith(start)


def test_every_location_is_a_command_that_shows_the_entry(index: Index) -> None:
    shown = {*pydoc.Helper.keywords, *pydoc.Helper.topics, *pydoc.Helper.symbols}
    for passage in index.passages:
        command, request = passage.location.rsplit(" ", 1)
        assert command == f"python{passages.PYTHON} -m pydoc"
        if passage.kind == "topic":
            assert request in shown, passage
        else:
            assert request == passage.name


@pytest.mark.parametrize("name", ["asyncio.timeout", "os.path.join", "str.split", "open", "email.message.Message.walk"])
def test_pydoc_finds_what_a_location_names(by_name: dict[str, Passage], name: str) -> None:
    assert pydoc.locate(by_name[name].location.rsplit(" ", 1)[1]) is not None


@pytest.mark.parametrize("name", ["antigravity", "this", "idlelib", "turtledemo"])
def test_modules_that_act_when_imported_are_left_out(index: Index, name: str) -> None:
    assert not [passage for passage in index.passages if passage.module.split(".")[0] == name]


SPLITS: list[tuple[str, int, list[str]]] = [
    ("a\n\nb", 10, ["a\n\nb"]),
    ("aaaa\n\nbbbb", 6, ["aaaa", "bbbb"]),
    ("aaaa\nbbbb\ncccc", 9, ["aaaa\nbbbb", "cccc"]),
    ("a\n\n\n\n  \n\nb", 10, ["a\n\nb"]),
    ("x" * 30, 10, ["x" * 30]),
    ("  indented\n\nplain", 20, ["  indented\n\nplain"]),
    ("", 10, []),
]


@pytest.mark.parametrize(("text", "limit", "pieces"), SPLITS)
def test_long_text_is_split_at_paragraphs_then_lines(text: str, limit: int, pieces: list[str]) -> None:
    assert split(text, limit=limit) == pieces


def test_passages_are_short_enough_to_quote(index: Index) -> None:
    assert max(len(passage.text) for passage in index.passages) <= 1500
