# ruff: noqa: RUF001 - full stops of every script are what is tested
from hypothesis import given
from hypothesis import strategies as st
from text.sentences import split
from text.summary import summarise

PROSE = st.lists(
    st.sampled_from(["The mesh routes calls. ", "It rains! ", "今日は。", "Calls cost time. ", "\n\n"])
).map("".join)


def test_the_sentences_with_the_most_frequent_words_are_kept_in_order() -> None:
    text = "Calls go to tools. It rains today outside. Tools answer calls. Somebody sings old songs."
    summary = summarise(text, max_sentences=2)
    assert summary.text == "Calls go to tools. Tools answer calls."


def test_a_short_text_is_kept_whole() -> None:
    assert summarise("One. Two.", max_sentences=3).text == "One. Two."


def test_a_blank_text_has_an_empty_summary() -> None:
    summary = summarise(" \n ", max_sentences=3)
    assert (summary.text, summary.sentences) == ("", ())


def test_a_sentence_that_stands_twice_is_taken_once() -> None:
    text = "Tools answer calls. Tools answer calls. It rains a lot here. Nobody comes today."
    assert summarise(text, max_sentences=2).text.count("Tools answer calls.") == 1


def test_no_space_is_put_where_the_script_has_none() -> None:
    assert summarise("今日は。元気？ Yes.", max_sentences=3).text == "今日は。元気？Yes."


@given(PROSE, st.integers(min_value=1, max_value=5))
def test_a_summary_is_made_of_the_texts_own_sentences(text: str, count: int) -> None:
    summary = summarise(text, max_sentences=count)
    assert len(summary.sentences) <= count
    assert set(summary.sentences) <= set(split(text))
    assert list(summary.sentences) == sorted(summary.sentences, key=lambda sentence: sentence.start)
    assert "".join(summary.text.split()) == "".join("".join(part.text.split()) for part in summary.sentences)
