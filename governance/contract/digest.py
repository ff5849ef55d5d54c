"""The name of a contract's content."""

from __future__ import annotations

import hashlib

from google.protobuf.descriptor_pb2 import FileDescriptorSet

__all__ = ["digest"]


def digest(files: FileDescriptorSet) -> str:
    """sha256 of a normalised set's deterministic bytes, in hex."""
    return hashlib.sha256(files.SerializeToString(deterministic=True)).hexdigest()
