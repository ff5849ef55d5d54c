import pytest
from hypothesis import given
from hypothesis import strategies as st
from text.notes import Kind, Note, find_notes


@pytest.mark.parametrize(
    ("line", "notes"),
    [
        pytest.param("Call the the tool.", [Note(Kind.REPEATED_WORD, 9, 12)], id="word twice"),
        pytest.param("The the tool.", [Note(Kind.REPEATED_WORD, 4, 7)], id="word twice in other case"),
        pytest.param("Tools, tools and 7 7", [], id="a comma between, or a number"),
        pytest.param("日 日本", [Note(Kind.REPEATED_WORD, 2, 3)], id="character twice"),
        pytest.param("two  spaces", [Note(Kind.EXTRA_SPACE, 3, 5)], id="two spaces"),
        pytest.param("at the end \r\n", [Note(Kind.EXTRA_SPACE, 10, 11)], id="space at the end"),
        pytest.param("    indented", [], id="indent"),
    ],
)
def test_notes_say_what_to_mend(line: str, notes: list[Note]) -> None:
    assert find_notes(line) == notes


def test_a_sentence_of_more_than_30_words_is_too_long() -> None:
    fine, long = (" ".join(f"w{number}" for number in range(count)) for count in (30, 31))
    assert find_notes(fine) == []
    assert find_notes(f"Ok! {long}") == [Note(Kind.LONG_SENTENCE, 4, 4 + len(long))]


@given(st.text(st.sampled_from("ab \t\n.é日") | st.characters(codec="utf-8")))
def test_notes_lie_in_the_line_and_in_its_order(line: str) -> None:
    notes = find_notes(line)
    assert all(0 <= note.start < note.end <= len(line) for note in notes)
    assert [note.start for note in notes] == sorted(note.start for note in notes)
