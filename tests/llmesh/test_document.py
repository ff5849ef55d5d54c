from __future__ import annotations

import pytest
from pydantic import Field

from llmesh.document import Document, DocumentError, parse_document


class Inner(Document):
    colour: str = "red"
    size_mm: int = Field(1, gt=0)


class Outer(Document):
    title: str
    parts: list[Inner] = []
    main: Inner | None = None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("title: a\ntitel: b\n", 2, "did you mean `title`?", id="key at the top"),
        pytest.param("title: a\nparts:\n  - size_mm: 2\n    color: red\n", 4, "did you mean `colour`?", id="in a list"),
        pytest.param("title: a\nmain:\n  colur: x\n", 3, "did you mean `colour`?", id="in an optional part"),
        pytest.param("title: a\nmain: {zzz: 1}\n", 2, "expected one of colour, size_mm", id="nothing near"),
        pytest.param("parts: []\n", 1, "`title`: field required", id="missing"),
        pytest.param("title: a\nparts:\n  - size_mm: 0\n", 3, "`parts.0.size_mm`: input should be greater", id="range"),
        pytest.param("title: a\n\ntitle: b\n", 3, "`title` is given twice", id="twice"),
        pytest.param("title: a\nparts:\n- colour: a\n  colour: b\n", 4, "`colour` is given twice", id="twice, inside"),
        pytest.param("title: [\n", 2, "not YAML", id="not YAML"),
        pytest.param("- title\n", 1, "input should be", id="a list"),
        pytest.param("", 1, "`title`: field required", id="nothing"),
        pytest.param("title: a\n---\ntitle: b\n", 2, "not YAML", id="two documents"),
        pytest.param("title: \x00\n", 1, "not YAML", id="control character"),
        pytest.param("title: !!python/object:os.system x\n", 1, "not YAML", id="object of a language"),
        pytest.param("title: a\nmain: 2026-99-99\n", 2, "`2026-99-99` is not a right timestamp", id="no such day"),
        pytest.param("title: a\nmain: 0x\n", 2, "main", id="no such number"),
        pytest.param("title: a\nmain: !!bool maybe\n", 2, "`maybe` is not a right bool", id="no such truth"),
        pytest.param(f"title: a\nmain: {'9' * 5000}\n", 2, "is not a right int", id="a number without end"),
        pytest.param(f"title: a\nmain: {'[' * 5000}", 2, "nested too deep", id="nested without end"),
        pytest.param("title: a\nmain: &m [*m]\n", 2, "contains itself", id="a list in itself"),
        pytest.param("title: a\nmain: &m {colour: *m}\n", 2, "contains itself", id="a map in itself"),
        pytest.param('title: a\nmain: {colour: "\\ud800"}\n', 2, "invalid Unicode character", id="half a character"),
        pytest.param(
            'title: a\nmain: {"\\ud800": a}\n', 2, "invalid Unicode character", id="half a character, as a key"
        ),
        pytest.param("title: a\nmain: {colour: \ud800}\n", 2, "half of a character", id="half a character, as it is"),
        pytest.param("title: a\n? [a, b]\n: c\n", 2, "unhashable", id="a list as a key"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(text: str, line: int, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_document(Outer, text, file="outer.yaml")

    assert refused.value.line == line
    assert str(refused.value).startswith(f"outer.yaml:{line}: ")
    assert said in refused.value.message


def test_a_part_that_is_named_again_without_end_is_refused_at_once() -> None:
    levels = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 30))
    with pytest.raises(DocumentError, match="is not a key here"):
        parse_document(Outer, f"title: a\nl0: &l0 [a]\n{levels}", file="f")


def test_a_part_may_be_named_again() -> None:
    read = parse_document(Outer, "title: a\nmain: &m {size_mm: 3}\nparts: [*m, *m]\n", file="f")
    assert read.parts == [read.main, read.main]


def test_a_right_document_is_read() -> None:
    assert parse_document(Outer, "title: a\nparts: [{size_mm: 3}]\n", file="f").parts == [Inner(size_mm=3)]
