"""Envoy's message types, in a pool of their own.

They come from envoy.binpb (`make xds`), so no generated `envoy`, `xds`,
`udpa` or `validate` module is importable, and nothing here can clash with
another package's descriptors.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any as Untyped

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

TYPE_PREFIX = "type.googleapis.com/"

# The Envoy that envoy.binpb was built for and the tests ran with. Another one
# may read the same bytes in another way, so it is not programmed.
ENVOY_VERSION = (1, 40)


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The pool that holds them all."""
    files = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files("gateway.xds").joinpath("envoy.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


@cache
def message_type(name: str) -> type[Message]:
    """The class of a message: "envoy.config.cluster.v3.Cluster". KeyError if envoy.binpb lacks it."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def make(name: str, /, **fields: Untyped) -> Message:
    """A message; fields may be messages, dicts for messages, and lists of either."""
    return message_type(name)(**fields)


def serialize(message: Message) -> bytes:
    """Equal messages give equal bytes."""
    return message.SerializeToString(deterministic=True)


def type_url(name: str) -> str:
    """The type URL of a message name."""
    return TYPE_PREFIX + name


def pack(message: Message) -> dict[str, Untyped]:
    """The message as the fields of a google.protobuf.Any, with deterministic bytes."""
    return {"type_url": type_url(message.DESCRIPTOR.full_name), "value": serialize(message)}
