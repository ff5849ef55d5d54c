"""What programmers ask of the standard library's documentation, by words alone: the rest takes a model (make bench)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.search.asked import questions
from tests.search.library import library, recall_of

if TYPE_CHECKING:
    from doc_search.index import Index

# A little below what was reached.
FLOOR = 0.19


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return library(tmp_path_factory.mktemp("cache"))


def test_every_label_names_an_entry(index: Index) -> None:
    names = {passage.name for passage in index.passages}
    assert {name for each in questions("docs") for name in each.want} <= names


def test_words_alone_answer_no_fewer_questions_than_they_did(index: Index) -> None:
    assert recall_of(index) >= FLOOR
