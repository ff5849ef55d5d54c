import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from acme.writing.v1 import text_pb2 as pb
from acme.writing.v1.text_pb2_grpc import TextStub
from text.service import TextService

from llmesh import InvalidCall, testing
from llmesh.api.summarise.v1 import summarise_pb2

TEXT = "The mesh is up. Call a tool! 今日は。元気 👩‍👧?"


@pytest_asyncio.fixture
async def tool() -> AsyncIterator[testing.ToolUnderTest]:
    async with testing.run(TextService()) as tool:
        yield tool


async def test_a_text_is_measured(tool: testing.ToolUnderTest) -> None:
    statistics = (await TextStub(tool.channel).Measure(pb.MeasureRequest(text=TEXT))).statistics
    assert (statistics.character_count, statistics.word_count, statistics.sentence_count) == (len(TEXT), 12, 4)
    assert statistics.reading_time.ToMilliseconds() == 3025


async def test_an_empty_text_is_measured(tool: testing.ToolUnderTest) -> None:
    statistics = (await TextStub(tool.channel).Measure(pb.MeasureRequest())).statistics
    assert (statistics.character_count, statistics.sentence_count, statistics.readability) == (0, 0, 0.0)


async def test_a_summary_says_where_its_sentences_stand(tool: testing.ToolUnderTest) -> None:
    request = summarise_pb2.SummariseRequest(text=TEXT, max_sentences=2)
    response = await TextStub(tool.channel).Summarise(request)
    parts = [TEXT[span.start : span.end] for span in response.spans]
    assert len(parts) == 2
    assert " ".join(parts) == response.summary


async def test_a_summary_has_three_sentences_unless_told(tool: testing.ToolUnderTest) -> None:
    request = summarise_pb2.SummariseRequest(text=TEXT)
    assert len((await TextStub(tool.channel).Summarise(request)).spans) == 3


async def test_a_summary_says_how_it_was_made(tool: testing.ToolUnderTest) -> None:
    call = TextStub(tool.channel).Summarise(summarise_pb2.SummariseRequest(text=TEXT))
    await call
    assert ("x-llmesh-provenance", '[{"algorithm":"sumbasic","sentences":3}]') in list(await call.trailing_metadata())


async def test_sentences_come_in_order_with_their_places(tool: testing.ToolUnderTest) -> None:
    sentences = [part async for part in TextStub(tool.channel).Split(pb.SplitRequest(text=TEXT))]
    assert [part.index for part in sentences] == [0, 1, 2, 3]
    assert [part.sentence for part in sentences] == [
        "The mesh is up.",
        "Call a tool!",
        "今日は。",
        "元気 👩‍👧?",
    ]
    assert all(TEXT[part.span.start : part.span.end] == part.sentence for part in sentences)


async def test_the_first_sentence_comes_before_a_long_text_is_split(tool: testing.ToolUnderTest) -> None:
    text = "One more sentence. " * 100_000
    split = TextStub(tool.channel).Split(pb.SplitRequest(text=text))
    assert (await anext(aiter(split))).sentence == "One more sentence."
    split.cancel()


async def test_pieces_are_counted_as_one_text_wherever_they_are_cut(tool: testing.ToolUnderTest) -> None:
    stub = TextStub(tool.channel)
    whole = await stub.Measure(pb.MeasureRequest(text=TEXT))
    counted = await stub.Count(pb.CountRequest(chunk=character) for character in TEXT)
    assert counted.statistics == whole.statistics


async def test_no_pieces_are_an_empty_text(tool: testing.ToolUnderTest) -> None:
    assert (await TextStub(tool.channel).Count(iter(()))).statistics.character_count == 0


async def test_each_line_is_answered_before_the_next_is_sent(tool: testing.ToolUnderTest) -> None:
    call = TextStub(tool.channel).Annotate()
    answers: list[pb.AnnotateResponse] = []
    async with asyncio.timeout(60):
        for line in ("Call the the tool.", "", "Fine."):
            await call.write(pb.AnnotateRequest(line=line))
            answer = await call.read()
            assert isinstance(answer, pb.AnnotateResponse)
            answers.append(answer)
        await call.done_writing()
    assert [answer.line_number for answer in answers] == [1, 2, 3]
    assert [answer.statistics.word_count for answer in answers] == [4, 0, 1]
    (note,) = answers[0].notes
    assert (note.kind, note.span.start, note.span.end) == (pb.NOTE_KIND_REPEATED_WORD, 9, 12)
    assert not answers[2].notes


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(summarise_pb2.SummariseRequest(), "text", id="no text"),
        pytest.param(summarise_pb2.SummariseRequest(text="x", max_sentences=101), "max_sentences", id="too many"),
        pytest.param(summarise_pb2.SummariseRequest(text="é" * 2_097_153), "text", id="too long"),
    ],
)
async def test_a_bad_request_says_which_field(
    tool: testing.ToolUnderTest, request_: summarise_pb2.SummariseRequest, field: str
) -> None:
    with pytest.raises(InvalidCall) as raised:
        await TextStub(tool.channel).Summarise(request_)
    assert [violation.field for violation in raised.value.violations] == [field]


async def test_a_line_that_is_too_long_ends_the_stream_with_a_bad_call(tool: testing.ToolUnderTest) -> None:
    lines = [pb.AnnotateRequest(line="fine"), pb.AnnotateRequest(line="x" * 65_537)]
    answers: list[pb.AnnotateResponse] = []

    async def annotate() -> None:
        answers.extend([answer async for answer in TextStub(tool.channel).Annotate(iter(lines))])

    with pytest.raises(InvalidCall):
        await annotate()


async def test_the_longest_text_is_taken(tool: testing.ToolUnderTest) -> None:
    text = "word " * 838_860
    statistics = (await TextStub(tool.channel).Measure(pb.MeasureRequest(text=text))).statistics
    assert statistics.word_count == 838_860
