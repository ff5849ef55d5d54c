"""The last good catalog comes back as it was kept, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.state import Remembered, Store

SHARED = FileDescriptorProto(name="shared.proto", package="acme")
KEPT = [
    Remembered("unix:/b", {"acme.B": [SHARED, FileDescriptorProto(name="b.proto")]}, frozenset({"acme.B"})),
    Remembered("unix:/a", {"acme.A": [SHARED], "acme.B": [SHARED, FileDescriptorProto(name="b.proto")]}),
]


def test_what_is_kept_comes_back_in_its_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "catalog.binpb")
    store.save(KEPT)
    assert store.load() == KEPT
    store.save([])
    assert store.load() == []


def test_nothing_kept_is_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "catalog.binpb").load() == []
    assert Store(tmp_path).load() == []


def test_a_file_that_many_contracts_share_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "catalog.binpb"
    Store(path).save(KEPT)
    assert path.read_bytes().count(b"shared.proto") == 1


@pytest.mark.parametrize("content", [b"", b"llmesh catalog 1\n", b"\x00" * 100, b"llmesh catalog 1\n" + b"\x00" * 100])
def test_what_is_no_catalog_reads_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.binpb"
    path.write_bytes(content)
    assert Store(path).load() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_catalog_with_a_wrong_byte_or_cut_short_reads_as_empty(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "catalog.binpb"
    Store(path).save(KEPT)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(content)
    assert Store(path).load() == []
