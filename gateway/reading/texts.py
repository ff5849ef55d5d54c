"""Whether the texts of a descriptor are texts.

descriptor.proto is proto2, in which a string may hold any bytes; the runtime
then gives bytes where everyone expects a str. A copy of descriptor.proto that
demands UTF-8 finds that at the speed of the parser.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import (
    DESCRIPTOR,
    DescriptorProto,
    Edition,
    FeatureSet,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

__all__ = ["all_texts"]


def all_texts(content: bytes) -> bool:
    """Whether every string in a serialised FileDescriptorProto is UTF-8."""
    try:
        _strict().FromString(content)
    except DecodeError:
        return False
    return True


@functools.cache
def _strict() -> type[Message]:
    file = FileDescriptorProto.FromString(DESCRIPTOR.serialized_pb)
    file.syntax, file.edition = "editions", Edition.EDITION_2023
    file.options.features.utf8_validation = FeatureSet.VERIFY
    file.options.features.enum_type = FeatureSet.CLOSED
    _modernise(file.message_type)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(FileDescriptorProto.DESCRIPTOR.full_name))


def _modernise(messages: Iterable[DescriptorProto]) -> None:
    """Say in the words of an edition what proto2 says in its own."""
    for message in messages:
        for field in message.field:
            field.options.ClearField("packed")
            if field.label == FieldDescriptorProto.LABEL_REQUIRED:
                field.label = FieldDescriptorProto.LABEL_OPTIONAL
        _modernise(message.nested_type)
