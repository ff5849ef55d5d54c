"""One contract is one set of bytes, whoever compiled it and in whatever order its files come."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from governance.contract.digest import digest
from governance.contract.normalise import CircularImportError, json_name, normalise, normalise_file
from llmesh.api.catalog.v1 import catalog_pb2

NAMES = [f"{letter}.proto" for letter in "abcdefgh"]


@st.composite
def file_sets(draw: st.DrawFn) -> list[FileDescriptorProto]:
    """Files that import only earlier ones."""
    files: list[FileDescriptorProto] = []
    for number, name in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))]):
        file = FileDescriptorProto(name=name, package="acme", syntax=draw(st.sampled_from(["proto2", "proto3", ""])))
        file.dependency.extend(draw(st.lists(st.sampled_from(NAMES[:number]), unique=True)) if number else [])
        message = file.message_type.add(name=f"M{number}")
        message.field.add(name=draw(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)), number=1, type=9, label=1)
        nested = message.nested_type.add(name="Inner")
        nested.field.add(name="some_field", number=1, type=FieldDescriptorProto.TYPE_BOOL)
        file.source_code_info.location.add(path=[4], span=[number, 0, 1])
        files.append(file)
    return files


@given(file_sets())
def test_normalising_twice_changes_nothing(files: list[FileDescriptorProto]) -> None:
    once = normalise(files)
    assert normalise(once) == once


@given(file_sets())
def test_the_digest_is_of_the_bytes_of_a_descriptor_set(files: list[FileDescriptorProto]) -> None:
    whole = FileDescriptorSet(file=files).SerializeToString(deterministic=True)
    assert digest(files) == hashlib.sha256(whole).hexdigest()
    known = {file.name: file.SerializeToString(deterministic=True) for file in files[1:]}
    assert digest(files, known=known) == digest(files)


@given(file_sets(), st.randoms())
def test_the_order_of_files_does_not_matter(files: list[FileDescriptorProto], random: Random) -> None:
    expected = digest(normalise(files))
    random.shuffle(files)
    assert digest(normalise(files)) == expected


@given(file_sets())
def test_every_file_follows_its_imports(files: list[FileDescriptorProto]) -> None:
    seen: set[str] = set()
    for file in normalise(files):
        assert seen.issuperset(file.dependency)
        seen.add(file.name)


@given(file_sets())
def test_what_is_given_is_not_changed(files: list[FileDescriptorProto]) -> None:
    before = [file.SerializeToString() for file in files]
    normalise(files)
    assert [file.SerializeToString() for file in files] == before


def test_positions_go_and_json_names_come() -> None:
    file = FileDescriptorProto(name="a.proto", syntax="proto2")
    file.source_code_info.location.add(path=[4])
    file.message_type.add(name="M").nested_type.add(name="N").field.add(name="owner_team", number=1)
    result = normalise_file(file)
    assert not result.HasField("source_code_info")
    assert not result.HasField("syntax")
    assert result.message_type[0].nested_type[0].field[0].json_name == "ownerTeam"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner_team", "ownerTeam"),
        ("a", "a"),
        ("a__b", "aB"),
        ("_a", "A"),
        ("a_", "a"),
        ("a_1", "a1"),
        ("fooBar", "fooBar"),
    ],
)
def test_json_names_are_those_of_protoc(name: str, expected: str) -> None:
    assert json_name(name) == expected


def test_json_names_are_those_that_the_runtime_derives() -> None:
    sent = FileDescriptorProto()
    catalog_pb2.DESCRIPTOR.CopyToProto(sent)
    for message in normalise_file(sent).message_type:
        described = descriptor_pool.Default().FindMessageTypeByName(f"{sent.package}.{message.name}")
        for field in message.field:
            assert field.json_name == described.fields_by_name[field.name].json_name


def test_files_that_import_each_other_have_no_order() -> None:
    files = [
        FileDescriptorProto(name="a.proto", dependency=["b.proto"]),
        FileDescriptorProto(name="b.proto", dependency=["a.proto"]),
        FileDescriptorProto(name="c.proto"),
    ]
    with pytest.raises(CircularImportError) as caught:
        normalise(files)
    assert caught.value.names == ("a.proto", "b.proto")
