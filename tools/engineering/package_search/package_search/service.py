"""The service: a RetrieveRequest in, the descriptions of packages out."""

import asyncio
import hashlib

from acme.engineering.v1 import package_search_pb2, package_search_pb2_grpc

from llmesh import current_call
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval
from llmesh.errors import InvalidCall, Violation
from llmesh.retrieval import Meanings

from .index import ATTRIBUTES, Hit
from .installed import Installed

__all__ = ["CONTRACT", "SOURCE", "PackageSearch"]

# The stubs alone do not bring it: the messages are of another file.
CONTRACT = package_search_pb2.DESCRIPTOR
SOURCE = "installed Debian packages"
_DEFAULT_LIMIT = 10


class PackageSearch(package_search_pb2_grpc.PackageSearchServicer):
    """acme.engineering.v1.PackageSearch over the packages of one machine."""

    def __init__(self, installed: Installed, meanings: Meanings) -> None:
        """Answer from what is installed. meanings: of the packages."""
        self._installed = installed
        self._meanings = meanings

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        """The packages that bear on the query, best first."""
        filters = read_filters(request)
        index = await self._installed.index()
        asked, limit = await self._meanings.ask(request.query, index.meant), request.limit or _DEFAULT_LIMIT
        hits = await asyncio.to_thread(index.search, request.query, limit=limit, filters=filters, asked=asked)
        current_call().cite(source=SOURCE, index=index.digest, **asked.provenance)
        return retrieval.RetrieveResponse(passages=map(to_passage, hits), words_alone=asked.words_alone)


def read_filters(request: retrieval.RetrieveRequest) -> list[tuple[str, list[str]]]:
    """The filters as pairs. Raises InvalidCall, which names those whose attribute packages lack."""
    known = ", ".join(f"`{name}`" for name in ATTRIBUTES)
    wrong = [
        Violation(
            f"filters[{at}].attribute", f"attribute `{each.attribute}` is not one of {known}", rule="attribute.known"
        )
        for at, each in enumerate(request.filters)
        if each.attribute not in ATTRIBUTES
    ]
    if wrong:
        raise InvalidCall(wrong[0].description, wrong)
    return [(each.attribute, list(each.values)) for each in request.filters]


def to_passage(hit: Hit) -> retrieval.Passage:
    """The hit as the contract has it."""
    found = hit.package
    return retrieval.Passage(
        text=found.text,
        citation=retrieval.Citation(
            source=SOURCE,
            title=f"{found.name} {found.version}".strip(),
            location=f"dpkg --status {found.name}",
            digest=hashlib.sha256(found.text.encode()).hexdigest(),
        ),
        score=hit.score,
        attributes={"package": found.name} | ({"section": found.section} if found.section else {}),
    )
