"""The service: a RetrieveRequest in, cited passages out."""

import asyncio
import hashlib
from collections.abc import Iterator

from acme.engineering.v1 import doc_search_pb2, doc_search_pb2_grpc

from llmesh import current_call
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval
from llmesh.errors import InvalidCall, Violation
from llmesh.retrieval import Meanings

from .index import ATTRIBUTES, Hit, Index
from .passages import PYTHON

__all__ = ["CONTRACT", "SOURCE", "DocSearch"]

# The stubs alone do not bring it: the messages are of another file.
CONTRACT = doc_search_pb2.DESCRIPTOR
SOURCE = f"python {PYTHON} standard library"
_DEFAULT_LIMIT = 10


class DocSearch(doc_search_pb2_grpc.DocSearchServicer):
    """acme.engineering.v1.DocSearch over one index."""

    def __init__(self, index: Index, meanings: Meanings) -> None:
        """Answer from index. meanings: of its passages."""
        self._index = index
        self._meanings = meanings

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        """The passages that bear on the query, best first."""
        if violations := list(unknown_attributes(request)):
            raise InvalidCall(violations[0].description, violations)
        filters = [(condition.attribute, list(condition.values)) for condition in request.filters]
        asked, limit = await self._meanings.ask(request.query, self._index.meant), request.limit or _DEFAULT_LIMIT
        hits = await asyncio.to_thread(self._index.search, request.query, limit=limit, filters=filters, asked=asked)
        current_call().cite(source=SOURCE, index=self._index.digest, **asked.provenance)
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
            title=found.name,
            location=found.location,
            digest=hashlib.sha256(found.text.encode()).hexdigest(),
        ),
        score=hit.score,
        attributes={"kind": found.kind} | ({"module": found.module} if found.module else {}),
    )
