"""A folder of .proto files as descriptors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import cast

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from llmesh.problem import Problem
from llmesh.protos import proto_folders


def compile_protos(folder: Path) -> Sequence[FileDescriptorProto]:
    """Every file under the folder, which imports start from, and all that those import. Raises Problem."""
    try:
        from grpc_tools import protoc  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise Problem(
            "reading .proto files needs protoc", "pip install grpcio-tools; or check a running tool by its address"
        ) from error
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    if not names:
        raise Problem(f"there is no .proto file under `{folder}`")
    folders = [folder, *proto_folders(), resources.files("grpc_tools") / "_proto"]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "set.binpb")
        arguments = [f"--descriptor_set_out={out}", "--include_imports", *names]
        main = cast("Callable[[list[str]], int]", protoc.main)  # pyright: ignore[reportUnknownMemberType]
        if main(["protoc", *[f"-I{path}" for path in folders], *arguments]) != 0:
            raise Problem(f"`{folder}` does not compile", "mend what protoc says above; -I is the folder itself")
        return FileDescriptorSet.FromString(out.read_bytes()).file
