"""Finding tools by words.

A tool becomes one document: its names count most, then what it says of
itself, then its domain and types, then its fields and examples. BM25 ranks
the documents; visibility is applied to the ranking before it is cut.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast

from google.protobuf.descriptor_pb2 import (
    EnumDescriptorProto,
    FileDescriptorProto,
)

from gateway.catalog import Catalog, Tool
from gateway.services.visible import Seen
from governance.contract.types import messages
from llmesh.api.options.v1 import options_pb2 as options

_WORD = re.compile(r"[^\W_]+")
_MIN_PLURAL = 4

# How often a text counts.
_NAME, _SUMMARY, _DOMAIN, _TYPE, _FIELD = 4, 2, 2, 2, 1


class _Numbers(Protocol):
    def tolist(self) -> list[float]: ...


class _Ranking(Protocol):
    """What we use of bm25s.BM25, which is untyped."""

    def index(self, corpus: list[list[str]], *, create_empty_token: bool, show_progress: bool) -> None: ...
    def get_tokens_ids(self, query_tokens: list[str]) -> list[int]: ...
    def get_scores_from_ids(self, query_tokens_ids: list[int]) -> _Numbers: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A tool that was found. score is above 0 and compares within one search."""

    seen: Seen
    score: float


class Index:
    """The words of one set of tools. Immutable; safe to read from any thread."""

    def __init__(self, documents: Mapping[str, list[str]]) -> None:
        """documents: the words of each tool, by service name."""
        self._services = tuple(documents)
        self._ranking = _ranking(documents.values()) if documents else None

    def rank(self, query: str) -> list[tuple[str, float]]:
        """Service names and scores above 0, best first; equal scores in order of names."""
        words = list(dict.fromkeys(tokens(query)))
        ids = self._ranking.get_tokens_ids(words) if self._ranking else []
        if self._ranking is None or not ids:
            return []
        scores = self._ranking.get_scores_from_ids(ids).tolist()
        hits = [(service, score) for service, score in zip(self._services, scores, strict=True) if score > 0]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _ranking(documents: Iterable[list[str]]) -> _Ranking:
    # It brings numpy, which a gateway need not wait for at its start.
    import bm25s  # pyright: ignore[reportMissingTypeStubs]  (it has none)

    ranking = cast("_Ranking", bm25s.BM25(method="lucene"))  # untyped package
    ranking.index(list(documents), create_empty_token=False, show_progress=False)
    return ranking


class Searcher:
    """Searches the newest catalog; makes the index again only when its words changed."""

    def __init__(self, *, unsearched: Collection[str] = ()) -> None:
        """Start without an index; the first search makes it. unsearched: tools that no words find."""
        self._unsearched = unsearched
        self._shelf = _Shelf({}, Index({}))
        self._version = -1
        self._building = asyncio.Lock()

    async def search(
        self, catalog: Catalog, query: str, *, see: Callable[[Tool | None], Seen | None], limit: int
    ) -> list[Hit]:
        """The best `limit` tools that are seen, best first; ties in order of names."""
        index = await self._fresh(catalog)
        hits = (Hit(seen, score) for service, score in index.rank(query) if (seen := see(catalog.tools.get(service))))
        return list(islice(hits, limit))

    async def _fresh(self, catalog: Catalog) -> Index:
        async with self._building:
            if catalog.version > self._version:
                tools = [tool for tool in catalog.tools.values() if tool.service not in self._unsearched]
                # A tool takes up to a millisecond.
                self._shelf = await asyncio.to_thread(_read, self._shelf, tools)
                self._version = catalog.version
            return self._shelf.index


@dataclass(frozen=True, slots=True)
class _Shelf:
    """An index, and the tools with the words that it was made of."""

    documents: Mapping[str, tuple[Tool, list[str]]]
    index: Index


def _read(before: _Shelf, tools: Iterable[Tool]) -> _Shelf:
    """The shelf of these tools; of a tool whose words cannot have changed, nothing is read again."""
    documents = {tool.service: (tool, _words(before.documents.get(tool.service), tool)) for tool in tools}
    words = {service: found for service, (_, found) in documents.items()}
    same = words.keys() == before.documents.keys() and all(
        before.documents[service][1] is found for service, found in words.items()
    )
    return _Shelf(documents, before.index if same else Index(words))


def _words(before: tuple[Tool, list[str]] | None, tool: Tool) -> list[str]:
    if before is not None:
        old, words = before
        told = (old.domain, old.contract.digest, old.sheet)
        if told == (tool.domain, tool.contract.digest, tool.sheet):
            return words
    return list(words_of(tool))


def tokens(text: str) -> Iterator[str]:
    """The words of a text, folded: `acme.DocSearches` gives acme, doc, search, docsearch.

    Split at whatever is no letter or digit and at the humps of camel case; a
    camel-cased name also counts whole.
    """
    for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
        parts = list(_humps(word))
        for part in parts:
            yield _singular(part.casefold())
        if len(parts) > 1:
            yield _singular(word.casefold())


def words_of(tool: Tool) -> Iterator[str]:
    """Every word a tool is found by, as often as it counts."""
    for text, weight in _texts_of(tool):
        for word in tokens(text):
            for _ in range(weight):
                yield word


def _humps(word: str) -> Iterator[str]:
    """The parts of a camel-cased word: `HTTPServer2` is HTTP, Server, 2."""
    start = 0
    for here in range(1, len(word)):
        last, this, following = word[here - 1], word[here], word[here + 1 : here + 2]
        rises = this.isupper() and (not last.isupper() or following.islower())
        if rises or last.isdigit() != this.isdigit():
            yield word[start:here]
            start = here
    yield word[start:]


def _singular(word: str) -> str:
    if len(word) < _MIN_PLURAL or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]


def _texts_of(tool: Tool) -> Iterator[tuple[str, int]]:
    sheet = tool.sheet
    yield tool.service, _NAME
    yield sheet.name, _NAME
    yield sheet.summary, _SUMMARY
    yield tool.domain, _DOMAIN
    yield sheet.owner_team, 1
    for text in (
        *sheet.data_sources,
        *sheet.models,
        *sheet.labels,
        *sheet.labels.values(),
    ):
        yield text, 1
    for method in tool.methods:
        yield method.name, _NAME
        yield method.options.summary, _SUMMARY
        for example in method.options.examples:
            yield f"{example.summary} {example.request_json} {example.response_json}", 1
    roots = {name for method in tool.methods for name in (method.request_type, method.response_type)}
    yield from _texts_of_types(tool.contract.files, roots)


def _texts_of_types(files: Sequence[FileDescriptorProto], roots: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Names, fields and meanings of the messages and enums that the roots reach."""
    types, enums = messages(files), dict(_enums(files))
    waiting, met = sorted(roots), set[str]()
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        if enum := enums.get(name):
            yield " ".join([enum.name, *(value.name for value in enum.value)]), _FIELD
        if message := types.get(name):
            capability = message.options.Extensions[options.capability]
            yield f"{name} {capability.name} {capability.summary}", _TYPE
            for field in message.field:
                told = field.options.Extensions[options.field]
                yield f"{field.name} {told.meaning} {told.unit}", _FIELD
                waiting.append(field.type_name.removeprefix("."))


def _enums(files: Sequence[FileDescriptorProto]) -> Iterator[tuple[str, EnumDescriptorProto]]:
    for file in files:
        yield from ((f"{file.package}.{enum.name}".removeprefix("."), enum) for enum in file.enum_type)
    for name, message in messages(files).items():
        yield from ((f"{name}.{enum.name}", enum) for enum in message.enum_type)
