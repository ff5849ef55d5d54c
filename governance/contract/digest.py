"""The name of a contract's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import FileDescriptorProto

__all__ = ["digest"]


# The tag of FileDescriptorSet.file.
FILE_TAG = b"\x0a"
SEVEN_BITS = 0x7F
MORE = 0x80

NONE: Mapping[str, bytes] = MappingProxyType({})


def digest(files: Iterable[FileDescriptorProto], *, known: Mapping[str, bytes] = NONE) -> str:
    """sha256 of the deterministic bytes of the normalised files, as a FileDescriptorSet, in hex.

    known: the deterministic bytes of some files, by name.
    """
    # Written as the encoding has it: a set would first copy every file.
    found = hashlib.sha256()
    for file in files:
        content = known.get(file.name) or file.SerializeToString(deterministic=True)
        found.update(FILE_TAG + _varint(len(content)))
        found.update(content)
    return found.hexdigest()


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > SEVEN_BITS:
        parts.append(number & SEVEN_BITS | MORE)
        number >>= 7
    parts.append(number)
    return bytes(parts)
