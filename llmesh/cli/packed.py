"""Types that an answer packs (google.protobuf.Any): its own contract need not have them, and the mesh may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from llmesh.dynamic import imports_first
from llmesh.errors import MeshError
from llmesh.problem import Problem
from llmesh.reflection import files_defining

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["learn_packed"]

# What a hostile answer may have looked up.
TYPES_MOST = 16


async def learn_packed(channel: grpc.aio.Channel, answer: Message) -> None:
    """Add to the answer's pool the types of what it packs, as the caller sees them on the mesh.

    Raises Problem for a type that is not there, or of which no message is packed.
    """
    pool = cast("DescriptorPool", answer.DESCRIPTOR.file.pool)
    for _ in range(TYPES_MOST):
        missing = next((name for name in _packed(answer, pool) if not _has(pool, name)), None)
        if missing is None:
            return
        await _learn(channel, missing, pool)
        if not _has(pool, missing):
            raise _unreadable(missing)
    raise Problem(f"the answer packs more than {TYPES_MOST} types", "read it with the stubs of its types")


def _has(pool: DescriptorPool, name: str) -> bool:
    try:
        pool.FindMessageTypeByName(name)
    except KeyError:
        return False
    return True


def _packed(message: Message, pool: DescriptorPool) -> Iterator[str]:
    """Full names of all that is packed in a message, outermost first; inside of what is packed too, if it is known."""
    if message.DESCRIPTOR.full_name == any_pb2.Any.DESCRIPTOR.full_name:
        yield from _in_any(cast("any_pb2.Any", message), pool)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            held = [value]
        else:
            held = value.values() if field.message_type.GetOptions().map_entry else value
        for each in held:
            # The values of a map need be no messages.
            if isinstance(each, Message):
                yield from _packed(each, pool)


def _in_any(packed: any_pb2.Any, pool: DescriptorPool) -> Iterator[str]:
    if not packed.type_url:
        return
    name = packed.type_url.rpartition("/")[2]
    yield name
    if _has(pool, name):
        try:
            inner = message_factory.GetMessageClass(pool.FindMessageTypeByName(name)).FromString(packed.value)
        except DecodeError as err:
            raise _unreadable(name) from err
        yield from _packed(inner, pool)


async def _learn(channel: grpc.aio.Channel, name: str, pool: DescriptorPool) -> None:
    try:
        files = await files_defining(channel, name)
    except MeshError as err:
        raise _unreadable(name) from err
    for file in imports_first(FileDescriptorProto.FromString(each) for each in files):
        _add(file, pool)


def _add(file: FileDescriptorProto, pool: DescriptorPool) -> None:
    try:
        pool.FindFileByName(file.name)
    except KeyError:
        pool.Add(file)


def _unreadable(name: str) -> Problem:
    return Problem(f"the answer packs a `{name}`, and that is no type on the mesh that you see", "use its stubs")
