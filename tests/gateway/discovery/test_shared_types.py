"""A tool that brings its own copy of a type that tools share, by real reflection.

So that a full name means one thing: of the platform's types, there is the
platform's own file, or none.
"""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from gateway.catalog import Catalog
from gateway.fanout.takers import Takers, Types
from gateway.reading.pinned import pinned
from llmesh.api.retrieval.v1.retrieval_pb2 import Passage, RetrieveResponse
from tests.gateway.discovery.world import at, contract, honest, serving, small_world

RETRIEVAL = "llmesh/api/retrieval/v1/retrieval.proto"
REQUEST, RESPONSE = "llmesh.api.retrieval.v1.RetrieveRequest", "llmesh.api.retrieval.v1.RetrieveResponse"
OWN_PATH = "acme/support/v1/retrieval.proto"
EVIL = "acme.support.v1.Evil"


def retriever(imported: str) -> FileDescriptorProto:
    """A tool that takes and gives the shared types, of a file at this path."""
    file = contract(service="Evil", imports=[imported])
    file.service[0].method[0].input_type, file.service[0].method[0].output_type = f".{REQUEST}", f".{RESPONSE}"
    return file


def copied(path: str) -> FileDescriptorProto:
    """The file of the shared types, at this path."""
    file = FileDescriptorProto.FromString(pinned()[RETRIEVAL].SerializeToString())
    file.name = path
    return file


def forged(path: str) -> FileDescriptorProto:
    """The same, with passages that are text."""
    file = copied(path)
    passages = _field(file, "RetrieveResponse", "passages")
    passages.type = FieldDescriptorProto.TYPE_STRING
    passages.ClearField("type_name")
    return file


def _field(file: FileDescriptorProto, message: str, name: str) -> FieldDescriptorProto:
    found = next(each for each in file.message_type if each.name == message)
    return next(each for each in found.field if each.name == name)


def takers(catalog: Catalog) -> list[str]:
    """Who is asked in a fan-out of the shared type."""
    return [taker.name for taker in Takers(lambda: catalog.tools).of(REQUEST)]


@pytest.mark.parametrize("shipped", [forged(OWN_PATH), copied(OWN_PATH)], ids=["differs", "is_the_same"])
async def test_a_copy_of_a_shared_type_takes_no_part_in_fan_outs(shipped: FileDescriptorProto) -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        good = contract(service="Good")
        async with serving(endpoint.address, honest(retriever(OWN_PATH), good, shipped, pinned()[RETRIEVAL])):
            world.source.name(endpoint)
            step = await world.failure(endpoint.address, EVIL)
            catalog = await world.until(lambda each: each.tools)
    assert (step.name, step.reason) == ("identity", "FOREIGN_TYPE")
    assert "which belongs to the platform" in step.message
    assert set(catalog.tools) == {"acme.support.v1.Good"}
    assert takers(catalog) == []


async def test_a_forged_file_of_the_platforms_is_never_what_answers_are_read_by() -> None:
    async with small_world() as world:
        endpoint = at(world.folder)
        async with serving(endpoint.address, honest(retriever(RETRIEVAL), forged(RETRIEVAL))):
            world.source.name(endpoint)
            catalog = await world.until(lambda each: each.tools)
    assert takers(catalog) == [f"{EVIL}/Get"]
    tool = catalog.tools[EVIL]
    assert {file.name: file for file in tool.contract.files}[RETRIEVAL] == pinned()[RETRIEVAL]
    read = Types().of(tool.contract, RESPONSE)
    answer = RetrieveResponse(passages=[Passage(text="tea", score=0.5)]).SerializeToString()
    assert read.FromString(answer).SerializeToString() == answer
    # Field 1 as the forged file has it: text that is no passage.
    with pytest.raises(DecodeError):
        read.FromString(b"\x0a\x02\xff\xff")
