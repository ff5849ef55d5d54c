# ruff: noqa: RUF001 - full stops of every script are what is tested
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text.sentences import Sentence, Splitter, split

# Every character that a rule looks at, and some that none does.
PROSE = st.text(
    st.sampled_from("ab AI1 \n\r\t.!?…。！．」”\"')—-\u200d\u0301\U0001f469\U0001f3fd\u2029é字ا؟")
    | st.characters(codec="utf-8")
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        pytest.param("Hello world. How are you? Fine!", ["Hello world.", "How are you?", "Fine!"], id="plain"),
        pytest.param("", [], id="empty"),
        pytest.param(" \n\t ", [], id="blank"),
        pytest.param("no end", ["no end"], id="no full stop"),
        pytest.param("Dr. J. R. Smith came. He sat.", ["Dr. J. R. Smith came.", "He sat."], id="title and initials"),
        pytest.param("Use it, e.g. Here. Or not.", ["Use it, e.g. Here.", "Or not."], id="abbreviation"),
        pytest.param("Pi is 3.14 or so. Yes.", ["Pi is 3.14 or so.", "Yes."], id="decimal point"),
        pytest.param("See example.com. Then go.", ["See example.com.", "Then go."], id="domain name"),
        pytest.param("It was I. You left.", ["It was I.", "You left."], id="the word I"),
        pytest.param("Wait... what? Now.", ["Wait... what?", "Now."], id="ellipsis before lower case"),
        pytest.param('"Go." Then he left.', ['"Go."', "Then he left."], id="closing quote"),
        pytest.param('"Really?" she asked.', ['"Really?" she asked.'], id="question inside a sentence"),
        pytest.param("1. First\n2. Second", ["1. First\n2. Second"], id="numbered list"),
        pytest.param("A heading\n\nA line", ["A heading", "A line"], id="blank line"),
        pytest.param("A heading\r\n \r\nA line", ["A heading", "A line"], id="blank line of Windows"),
        pytest.param("今日は。元気？「はい。」行く", ["今日は。", "元気？", "「はい。」", "行く"], id="Japanese"),
        pytest.param("３．１４です。", ["３．１４です。"], id="full-width decimal point"),
        pytest.param("هل أنت بخير؟ نعم.", ["هل أنت بخير؟", "نعم."], id="Arabic"),
        pytest.param("हम हैं। तुम हो।", ["हम हैं।", "तुम हो।"], id="Hindi"),
        pytest.param("👩‍👩‍👧! 👍🏽? Ok", ["👩‍👩‍👧!", "👍🏽?", "Ok"], id="emoji"),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, sentences: list[str]) -> None:
    assert [sentence.text for sentence in split(text)] == sentences


@given(PROSE)
def test_a_span_is_the_sentence(text: str) -> None:
    for sentence in split(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.text == sentence.text.strip() != ""


@given(PROSE)
def test_nothing_but_white_space_lies_between_sentences(text: str) -> None:
    end = 0
    for sentence in split(text):
        assert text[end : sentence.start].strip() == ""
        end = sentence.end
    assert text[end:].strip() == ""


@given(PROSE, st.data(), st.integers(min_value=1, max_value=40))
def test_where_pieces_are_cut_makes_no_difference(text: str, data: st.DataObject, max_sentence: int) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _feed(pieces, max_sentence) == _feed([text], max_sentence) == _feed(list(text), max_sentence)


@given(PROSE, st.integers(min_value=1, max_value=40))
def test_a_sentence_is_never_longer_than_the_limit(text: str, max_sentence: int) -> None:
    sentences = _feed([text], max_sentence)
    assert all(len(sentence.text) <= max_sentence for sentence in sentences)
    assert "".join("".join(sentence.text for sentence in sentences).split()) == "".join(text.split())


def test_a_sentence_comes_before_its_text_has_ended() -> None:
    splitter = Splitter()
    assert splitter.feed("One. Tw") == [Sentence("One.", 0, 4)]
    assert splitter.feed("o. Three") == [Sentence("Two.", 5, 9)]
    assert splitter.finish() == [Sentence("Three", 10, 15)]


def test_a_part_of_a_long_sentence_ends_between_words_and_never_inside_a_cluster() -> None:
    assert [part.text for part in _feed(["aaa bbb ccc"], 9)] == ["aaa bbb", "ccc"]
    assert [part.text for part in _feed(["xxxe\u0301"], 4)] == ["xxx", "e\u0301"]
    assert [part.text for part in _feed(["xx👩‍👧"], 4)] == ["xx", "👩‍👧"]


def _feed(pieces: list[str], max_sentence: int) -> list[Sentence]:
    splitter = Splitter(max_sentence=max_sentence)
    found = [sentence for piece in pieces for sentence in splitter.feed(piece)]
    return [*found, *splitter.finish()]
