"""The platform's own copies of files that every contract may import.

A type of `google.*`, `grpc.*`, `buf.*` or `llmesh.*` means what these say,
never what a tool sends along.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from governance.contract.normalise import normalise_file
from governance.contract.types import messages

__all__ = ["pinned", "pinned_bytes", "pinned_messages"]

# Packages whose modules are all generated, with everything below them.
TREES = ("google.api", "google.longrunning", "google.rpc", "google.type", "llmesh.api", "buf.validate")
MODULES = (
    "google.protobuf.any_pb2",
    "google.protobuf.api_pb2",
    "google.protobuf.compiler.plugin_pb2",
    "google.protobuf.descriptor_pb2",
    "google.protobuf.duration_pb2",
    "google.protobuf.empty_pb2",
    "google.protobuf.field_mask_pb2",
    "google.protobuf.source_context_pb2",
    "google.protobuf.struct_pb2",
    "google.protobuf.timestamp_pb2",
    "google.protobuf.type_pb2",
    "google.protobuf.wrappers_pb2",
    "grpc_health.v1.health_pb2",
    "grpc_reflection.v1alpha.reflection_pb2",
)


@functools.cache
def pinned() -> Mapping[str, FileDescriptorProto]:
    """Every pinned file by its import path, normalised.

    The first call imports the stubs, which also registers the options: call it
    before a descriptor is parsed, or its options are read as unknown fields.
    """
    modules = [importlib.import_module(name) for name in (*MODULES, *_generated())]
    files = [normalise_file(FileDescriptorProto.FromString(each.DESCRIPTOR.serialized_pb)) for each in modules]
    return MappingProxyType({file.name: file for file in files})


@functools.cache
def pinned_bytes() -> Mapping[str, bytes]:
    """The deterministic bytes of every pinned file by its import path."""
    return MappingProxyType({name: file.SerializeToString(deterministic=True) for name, file in pinned().items()})


@functools.cache
def pinned_messages() -> Mapping[str, DescriptorProto]:
    """Every message of the pinned files by its full name."""
    return MappingProxyType(messages(pinned().values()))


def _generated() -> Iterator[str]:
    """Names of the trees' modules; ours have no __init__.py, so pkgutil would miss them."""
    for tree in TREES:
        for folder in importlib.import_module(tree).__path__:
            for path in sorted(Path(folder).rglob("*_pb2.py")):
                yield ".".join((tree, *path.relative_to(folder).with_suffix("").parts))
