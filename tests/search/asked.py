"""The labelled questions, the mesh that they are asked of, and how many of them a search answers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.catalog import Tool
from tests.gateway.services.world import files_of, tool_from
from tests.search.made_up import contracts

HERE = Path(__file__).parent
REPO = HERE.parents[1]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what answers it: any of `want`."""

    ask: str
    want: tuple[str, ...]


def questions(name: str) -> list[Question]:
    """The questions of a file: "tools" or "docs"."""
    return [Question(each["ask"], tuple(each["want"])) for each in yaml.safe_load((HERE / f"{name}.yaml").read_text())]


def recall(asked: Sequence[Question], found: Callable[[str], Sequence[str]]) -> float:
    """The share of questions that are answered by what is found, which is the first few."""
    return sum(not set(each.want).isdisjoint(found(each.ask)) for each in asked) / len(asked)


def mesh() -> dict[str, Tool]:
    """The 2,000 tools that are made up, and the reference tools."""
    needed = files_of()
    made = {name: tool_from(name, [file, *needed]) for name, file in contracts().items()}
    return made | {tool.service: tool for tool in reference_tools()}


def reference_tools() -> Iterator[Tool]:
    """The tools of tools/, as their contracts have them."""
    for module in sorted(REPO.glob("tools/*/*/acme/*/v1/*_pb2.py")):
        folder = module.parents[3]
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        name = ".".join(module.relative_to(folder).with_suffix("").parts)
        descriptor: FileDescriptor = importlib.import_module(name).DESCRIPTOR
        for service in descriptor.services_by_name.values():
            yield tool_from(service.full_name, _closure(descriptor).values())


def _closure(descriptor: FileDescriptor) -> dict[str, FileDescriptorProto]:
    """The file and all that it imports, by name."""
    found = {descriptor.name: FileDescriptorProto.FromString(descriptor.serialized_pb)}
    for each in descriptor.dependencies:
        found |= _closure(each)
    return found
