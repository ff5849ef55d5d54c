"""A type that the caller's own files do not have: what is told of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from llmesh.errors import NotFound
from model_server.type_work import NAMES, Named, look
from tests.llmesh.schema.shapes import files, from_source


def told_of(name: str, *sent: FileDescriptorProto) -> str:
    """The words for a name that these files do not have."""
    with pytest.raises(NotFound) as told:
        look(Named(tuple(file.SerializeToString() for file in sent), name, "type", sent=True))
    assert told.value.reason == "UNKNOWN_TYPE"
    return told.value.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        pytest.param("acme.shapes.v1.Tikcet", "acme.shapes.v1.Ticket", id="typo"),
        pytest.param("Ticket", "acme.shapes.v1.Ticket", id="the end of a name"),
        pytest.param("Pin", "Pan.Pin", id="within another"),
        pytest.param("acme.v1.Pots/Gett", "Pots/Get", id="method"),
    ],
)
def test_the_nearest_of_the_names_that_were_sent_is_told(name: str, meant: str) -> None:
    source = 'syntax = "proto3"; message Pan { message Pin {} } service Pots { rpc Get(Pan) returns (Pan); }'
    assert told_of(name, *files().file, *from_source(source).files).endswith(
        f" `{name}` in the files that were sent (nearest: `{meant}`)"
    )


def test_that_no_file_was_sent_is_told() -> None:
    assert told_of("acme.M") == (
        "there is no message type `acme.M` in `descriptors`, which has no file: leave that out for one of the mesh"
    )


def test_the_nearest_is_looked_for_among_some_names_and_no_long_ones() -> None:
    def told(*messages: DescriptorProto) -> str:
        return told_of("Tickets", FileDescriptorProto(name="a.proto", message_type=messages))

    near, nowhere = DescriptorProto(name="Ticket"), "there is no message type `Tickets` in the files that were sent"
    assert told(*_many(NAMES - 1), near) == f"{nowhere} (nearest: `Ticket`)"
    assert told(*_many(NAMES), near) == nowhere
    assert told(DescriptorProto(name="A" * 512, nested_type=[near])) == nowhere


def _many(count: int) -> Iterable[DescriptorProto]:
    return (DescriptorProto(name=f"M{at}") for at in range(count))
