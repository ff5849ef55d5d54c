"""The messages of every shape, compiled: descriptors in a pool of their own."""

from __future__ import annotations

import functools
import tempfile
from importlib import resources
from pathlib import Path

import grpc_tools.protoc  # pyright: ignore[reportMissingTypeStubs]
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from llmesh.dynamic import Contract

REPO = Path(__file__).parents[3]
PROTOS = Path(__file__).parent / "protos"
BUILT_IN = Path(str(resources.files("grpc_tools") / "_proto"))
PACKAGE = "acme.shapes.v1"


def compiled(folder: Path) -> FileDescriptorSet:
    """What the .proto files in a folder define, with all that they import."""
    with tempfile.TemporaryDirectory() as out:
        made = Path(out) / "set.binpb"
        includes = [f"-I{root}" for root in (folder, REPO / "protos", REPO / "third_party", BUILT_IN)]
        names = sorted(path.name for path in folder.glob("*.proto"))
        arguments = ["protoc", *includes, "--include_imports", f"--descriptor_set_out={made}", *names]
        assert grpc_tools.protoc.main(arguments) == 0  # pyright: ignore[reportUnknownMemberType]
        return FileDescriptorSet.FromString(made.read_bytes())


@functools.cache
def files() -> FileDescriptorSet:
    """The files with all the shapes."""
    return compiled(PROTOS)


@functools.cache
def shapes() -> dict[str, Descriptor]:
    """Every message at the top of a file, by its name in the package."""
    contract = Contract.of(files())
    own = [file for file in contract.files if file.package == PACKAGE]
    return {
        message.name: contract.pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}")
        for file in own
        for message in file.message_type
    }


def from_source(source: str) -> Contract:
    """The contract that one .proto file makes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one.proto").write_text(source)
        return Contract.of(compiled(Path(folder)))


def message(source: str) -> Descriptor:
    """The message `M` of a proto3 file, without a package, whose body this is; what it imports is there."""
    imports = "".join(
        f'import "{name}.proto";'
        for name in (
            "buf/validate/validate",
            "llmesh/api/options/v1/options",
            *(f"google/protobuf/{name}" for name in ("any", "duration", "struct", "timestamp", "wrappers")),
        )
    )
    return from_source(f'syntax = "proto3"; {imports} {source}').pool.FindMessageTypeByName("M")


def sent(message: Descriptor) -> FileDescriptorSet:
    """The files that define a message, and all that they import, as callers send them."""
    found = {message.file.name: message.file}
    waiting = [message.file]
    while waiting:
        waiting.extend(found.setdefault(each.name, each) for each in waiting.pop().dependencies)
    return FileDescriptorSet(file=[FileDescriptorProto.FromString(each.serialized_pb) for each in found.values()])
