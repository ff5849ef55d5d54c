"""The methods of acme.writing.v1.Text.

Each takes its text to a thread in pieces, so that a long one holds up nobody
else's call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from acme.writing.v1 import text_pb2 as pb
from acme.writing.v1 import text_pb2_grpc

import llmesh
from llmesh.api.summarise.v1 import summarise_pb2
from text.messages import to_note, to_span, to_statistics
from text.notes import find_notes
from text.sentences import Sentence, Splitter
from text.statistics import Counter, measure
from text.summary import summarise

__all__ = ["TextService"]

# A few milliseconds' work.
_PIECE = 16_384
_SUMMARY_SENTENCES = 3


class TextService(text_pb2_grpc.TextServicer):
    """Work on text. Keeps nothing from one call to the next."""

    async def Measure(self, request: pb.MeasureRequest, context: object) -> pb.MeasureResponse:
        """The statistics of a text."""
        counts = await asyncio.to_thread(measure, request.text)
        return pb.MeasureResponse(statistics=to_statistics(counts))

    async def Summarise(
        self,
        request: summarise_pb2.SummariseRequest,
        context: object,
    ) -> summarise_pb2.SummariseResponse:
        """The sentences that carry most of a text."""
        count = request.max_sentences or _SUMMARY_SENTENCES
        summary = await asyncio.to_thread(summarise, request.text, max_sentences=count)
        llmesh.current_call().cite(algorithm="sumbasic", sentences=len(summary.sentences))
        return summarise_pb2.SummariseResponse(
            summary=summary.text, spans=[to_span(part) for part in summary.sentences]
        )

    async def Split(self, request: pb.SplitRequest, context: object) -> AsyncIterator[pb.SplitResponse]:
        """The sentences of a text, each when it is found."""
        index = 0
        async for sentence in _split(request.text):
            yield pb.SplitResponse(index=index, sentence=sentence.text, span=to_span(sentence))
            index += 1

    async def Count(
        self,
        request_iterator: AsyncIterator[pb.CountRequest],
        context: object,
    ) -> pb.CountResponse:
        """The statistics of the pieces as one text."""
        counter = Counter()
        async for request in request_iterator:
            await asyncio.to_thread(counter.feed, request.chunk)
        counts = await asyncio.to_thread(counter.finish)
        return pb.CountResponse(statistics=to_statistics(counts))

    async def Annotate(
        self,
        request_iterator: AsyncIterator[pb.AnnotateRequest],
        context: object,
    ) -> AsyncIterator[pb.AnnotateResponse]:
        """What to mend in each line, at once and in order."""
        number = 0
        async for request in request_iterator:
            number += 1
            yield await asyncio.to_thread(_annotate, request.line, number)


def _annotate(line: str, number: int) -> pb.AnnotateResponse:
    return pb.AnnotateResponse(
        line_number=number,
        statistics=to_statistics(measure(line)),
        notes=[to_note(note) for note in find_notes(line)],
    )


async def _split(text: str) -> AsyncIterator[Sentence]:
    splitter = Splitter()
    for piece in _pieces(text):
        for sentence in await asyncio.to_thread(splitter.feed, piece):
            yield sentence
    for sentence in await asyncio.to_thread(splitter.finish):
        yield sentence


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]
