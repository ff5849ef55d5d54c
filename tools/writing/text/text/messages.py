"""What the tool finds, as messages of its contract."""

from __future__ import annotations

from collections.abc import Mapping

from acme.writing.v1 import text_pb2 as pb

from llmesh.api.summarise.v1 import summarise_pb2
from text.notes import Kind, Note
from text.sentences import Sentence
from text.statistics import Counts

__all__ = ["to_note", "to_span", "to_statistics"]

_KINDS: Mapping[Kind, pb.NoteKind.ValueType] = {
    Kind.REPEATED_WORD: pb.NOTE_KIND_REPEATED_WORD,
    Kind.LONG_SENTENCE: pb.NOTE_KIND_LONG_SENTENCE,
    Kind.EXTRA_SPACE: pb.NOTE_KIND_EXTRA_SPACE,
}


def to_statistics(counts: Counts) -> pb.Statistics:
    """The counts and what follows from them."""
    statistics = pb.Statistics(
        character_count=counts.characters,
        word_count=counts.words,
        sentence_count=counts.sentences,
        long_word_count=counts.long_words,
        readability=counts.readability,
    )
    statistics.reading_time.FromMilliseconds(counts.reading_ms)
    return statistics


def to_span(part: Sentence | Note) -> summarise_pb2.Span:
    """Where a part stands in its text."""
    return summarise_pb2.Span(start=part.start, end=part.end)


def to_note(note: Note) -> pb.Note:
    """One thing to mend, with the advice for its kind."""
    return pb.Note(kind=_KINDS[note.kind], span=to_span(note), advice=note.kind.value)
