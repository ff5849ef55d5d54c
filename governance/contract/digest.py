"""The name of a contract's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

__all__ = ["digest"]


def digest(files: Iterable[FileDescriptorProto]) -> str:
    """sha256 of the deterministic bytes of the normalised files, as a FileDescriptorSet, in hex."""
    return hashlib.sha256(FileDescriptorSet(file=files).SerializeToString(deterministic=True)).hexdigest()
