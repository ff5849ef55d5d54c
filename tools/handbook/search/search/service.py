"""The service: a RetrieveRequest in, cited passages out."""

import asyncio
import hashlib
from collections.abc import Iterator

from acme.handbook.v1 import handbook_search_pb2, handbook_search_pb2_grpc

from llmesh import current_call
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval
from llmesh.errors import InvalidCall, Violation
from llmesh.retrieval import Meanings

from .handbook import Handbook
from .index import ATTRIBUTES, Hit

__all__ = ["CONTRACT", "SOURCE", "HandbookSearch"]

# The stubs alone do not bring it: the messages are of another file.
CONTRACT = handbook_search_pb2.DESCRIPTOR
SOURCE = "LL-Mesh handbook"
_DEFAULT_LIMIT = 10


class HandbookSearch(handbook_search_pb2_grpc.HandbookSearchServicer):
    """acme.handbook.v1.HandbookSearch over one handbook."""

    def __init__(self, handbook: Handbook, meanings: Meanings) -> None:
        """Answer from handbook. meanings: of its passages."""
        self._handbook = handbook
        self._meanings = meanings

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        """The passages that bear on the query, best first."""
        if violations := list(unknown_attributes(request)):
            raise InvalidCall(violations[0].description, violations)
        filters = [(condition.attribute, list(condition.values)) for condition in request.filters]
        index = await self._handbook.index()
        asked, limit = await self._meanings.ask(request.query, index.meant), request.limit or _DEFAULT_LIMIT
        hits = await asyncio.to_thread(index.search, request.query, limit=limit, filters=filters, asked=asked)
        current_call().cite(source=SOURCE, index=index.digest, **asked.provenance)
        return retrieval.RetrieveResponse(passages=map(to_passage, hits), words_alone=asked.words_alone)


def unknown_attributes(request: retrieval.RetrieveRequest) -> Iterator[Violation]:
    """What is wrong with filters that name attributes which passages lack."""
    known = ", ".join(f"`{name}`" for name in ATTRIBUTES)
    for at, condition in enumerate(request.filters):
        if condition.attribute not in ATTRIBUTES:
            description = f"attribute `{condition.attribute}` is not one of {known}"
            yield Violation(f"filters[{at}].attribute", description, rule="attribute.known")


def to_passage(hit: Hit) -> retrieval.Passage:
    """The hit as the contract has it."""
    found = hit.passage
    return retrieval.Passage(
        text=found.text,
        citation=retrieval.Citation(
            source=SOURCE,
            title=" > ".join(found.headings) or found.file,
            location=found.location,
            digest=hashlib.sha256(found.text.encode()).hexdigest(),
        ),
        score=hit.score,
        attributes={"file": found.file} | ({"heading": found.heading} if found.heading else {}),
    )
