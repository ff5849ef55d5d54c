import pytest
from hypothesis import given
from hypothesis import strategies as st
from text.sentences import split
from text.statistics import Counter, Counts, measure
from text.words import find_words

TEXT = st.text(st.characters(codec="utf-8"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("Don't stop", ["Don't", "stop"], id="apostrophe"),
        pytest.param("a well-known snake_case", ["a", "well-known", "snake_case"], id="joined"),
        pytest.param("3.14, then", ["3.14", "then"], id="number"),
        pytest.param("naïve cafe\u0301", ["naïve", "cafe\u0301"], id="marks"),
        pytest.param("今日は", ["今", "日", "は"], id="Japanese"),
        pytest.param("안녕 세상", ["안녕", "세상"], id="Korean"),
        pytest.param("हिन्दी भाषा", ["हिन्दी", "भाषा"], id="Hindi"),
        pytest.param("👍🏽 ... —", [], id="no words"),
    ],
)
def test_words_are_what_a_reader_takes_for_words(text: str, words: list[str]) -> None:
    assert [word[0] for word in find_words(text)] == words


def test_counts_of_a_known_text() -> None:
    counts = measure("The mesh is up. Call a different tool! 👩‍👧")
    assert counts == Counts(characters=42, words=8, sentences=3, long_words=1)
    assert counts.reading_ms == 2017
    assert counts.readability == pytest.approx(8 / 3 + 100 / 8)


def test_text_without_words_takes_no_time_and_is_not_hard() -> None:
    assert measure("") == Counts()
    assert (measure("...").reading_ms, measure("...").readability) == (0, 0.0)


@given(st.lists(TEXT))
def test_pieces_count_as_one_text(pieces: list[str]) -> None:
    counter = Counter()
    for piece in pieces:
        counter.feed(piece)
    assert counter.finish() == measure("".join(pieces))


@given(TEXT)
def test_counts_agree_with_what_they_count(text: str) -> None:
    counts = measure(text)
    assert counts.characters == len(text)
    assert counts.sentences == len(split(text))
    assert counts.words == sum(1 for _ in find_words(text))
    assert 0 <= counts.long_words <= counts.words
