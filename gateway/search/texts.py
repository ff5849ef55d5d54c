"""What a tool is found by: the words of all that it says of itself, and a text that says what it is for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto

from gateway.catalog import Tool
from gateway.search.words import humps, tokens
from governance.contract.types import messages
from llmesh.api.options.v1 import options_pb2 as options

__all__ = ["meanings_of", "words_of"]

# How often a text counts.
_NAME, _SUMMARY, _DOMAIN, _TYPE, _FIELD = 4, 2, 2, 2, 1
# A model reads a few hundred words.
_MEANING_CHARS = 2000
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
# The others are in the whole.
_SENTENCES = 8


def words_of(tool: Tool) -> Mapping[str, int]:
    """Every word a tool is found by, with how often it counts."""
    found: Counter[str] = Counter()
    for text, weight in _texts_of(tool):
        for word in tokens(text):
            found[word] += weight
    return found


def meanings_of(tool: Tool) -> list[str]:
    """What the tool is for, as it says itself: its name and summary, then the summary's sentences; never empty."""
    name = " ".join(humps(tool.service.rpartition(".")[2])).lower()
    summary = tool.sheet.summary[:_MEANING_CHARS].strip() or name
    whole = f"{tool.sheet.name or name}: {summary}"[:_MEANING_CHARS]
    return [whole, *_SENTENCE.split(summary)[:_SENTENCES]]


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
